"""Storage calls on bad days: again after what may pass, one file for one row, and never a wrong file (FAULTS F32)."""

import errno
import hashlib
import logging
import os
import threading
from uuid import uuid4

import pytest
from django.conf import settings as configured
from django.core.files.storage import default_storage, filesystem
from django.db import OperationalError, connection
from django.db.models.functions import Now

from jobs import artifacts, blobs, breakers, lifecycle, runner
from jobs.errors import ErrorCode, JobError, LeaseLost
from jobs.heartbeat import heart
from jobs.kinds.base import Abort
from jobs.models import Artifact, Breaker, Job, JobEvent, JobInput, Status
from tests import s3_server
from tests.s3_server import BadDay
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _short_waits_and_no_thread_left(settings):
    settings.JOBSITE = {**settings.JOBSITE, "RETRY_INITIAL_DELAY": 0.01, "RETRY_MAX_DELAY": 0.02}
    yield
    heart.stop()


@pytest.fixture
def s3(settings):
    """The storage is a bucket behind a proxy, which this is."""
    with s3_server.proxied() as proxy:
        there = s3_server.storage(f"jobsite-{uuid4().hex[:12]}", endpoint=proxy.address)
        settings.STORAGES = {**settings.STORAGES, "default": there}
        yield proxy


def work(submit, **params) -> Job:
    """A job, run in this process until it is settled."""
    job = submit(**params)
    runner.run(lifecycle.claim("cpu"))
    return Job.objects.get(pk=job.pk)


# --- a folder ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def failing_save(monkeypatch):
    """failing_save(errno.EIO, 2) → the next two saves fail; the list of all that were tried."""

    def fail(number: int, times: int) -> list[str]:
        tried, save = [], default_storage.save

        def flaky(name, *arguments, **options):
            tried.append(name)
            if len(tried) <= times:
                raise OSError(number, os.strerror(number))
            return save(name, *arguments, **options)

        monkeypatch.setattr(default_storage, "save", flaky)
        return tried

    return fail


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.ETIMEDOUT, errno.ESTALE])
def test_what_may_pass_is_tried_again_and_told(submit, failing_save, caplog, number):
    caplog.set_level(logging.INFO)
    tried = failing_save(number, 2)
    job = work(submit)
    assert (job.status, job.failures, len(tried)) == (Status.SUCCEEDED, 0, 3)
    label = f"Save file dish.txt for job {job.pk}"
    assert [line for line in caplog.messages if label in line] == [f"{label}: Attempt {n}/3" for n in (1, 2, 3)]


def test_an_empty_folder_that_is_removed_under_it_is_made_again(submit, monkeypatch):
    """What an earlier attempt stored is thrown away just then, and their folders with it."""
    plain, moved = filesystem.file_move_safe, []

    def move(source, target, **options):
        if not moved:
            os.removedirs(os.path.dirname(target))
        moved.append(target)
        return plain(source, target, **options)

    monkeypatch.setattr(filesystem, "file_move_safe", move)
    job = work(submit)
    assert (job.status, job.failures, len(moved)) == (Status.SUCCEEDED, 0, 2)


def test_what_does_not_pass_fails_the_attempt(submit, failing_save):
    tried = failing_save(errno.EIO, 10)
    job = work(submit)
    assert (job.status, job.error_code, len(tried)) == (Status.RETRY, "storage_error", 3)
    assert job.error_message == "dish.txt: Input/output error."
    assert not Breaker.objects.exists()  # of a folder, no breaker


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG])
def test_what_will_not_pass_is_not_tried_again(submit, failing_save, number):
    tried = failing_save(number, 10)
    assert work(submit).error_code == "storage_error"
    assert len(tried) == 1


def test_a_cancel_ends_the_wait(failing_save, tmp_path, settings):
    settings.JOBSITE = {**settings.JOBSITE, "RETRY_INITIAL_DELAY": 60.0, "RETRY_MAX_DELAY": 60.0}
    failing_save(errno.EIO, 1)
    (tmp_path / "x").write_bytes(b"x")
    looks = []

    def check():
        looks.append(1)
        if len(looks) > 2:
            raise Abort

    with pytest.raises(Abort):
        blobs.put(tmp_path / "x", "jobs/a/1/x", label="Save file x", check=check)


def test_a_job_cancelled_while_its_file_waits_for_the_storage_is_over_at_once(submit, failing_save, settings):
    settings.JOBSITE = {**settings.JOBSITE, "RETRY_INITIAL_DELAY": 600.0, "RETRY_MAX_DELAY": 600.0}
    tried = failing_save(errno.EIO, 1)
    job = submit()
    lease = lifecycle.claim("cpu")

    def cancel() -> None:
        until(lambda: tried, seconds=20)
        lifecycle.cancel(job.pk, by="test")
        connection.close()  # this thread's own

    thread = threading.Thread(target=cancel)
    thread.start()
    runner.run(lease)  # would take ten minutes
    thread.join()
    assert Job.objects.get(pk=job.pk).status == Status.CANCELED
    assert blobs.listing("jobs") == []


def test_a_changed_input_is_read_again_before_it_is_given_up(succeeded, submit, tmp_path, monkeypatch):
    row = succeeded().outputs.get()
    real, cut = default_storage.open, []

    def cut_short(key, mode="rb"):
        stored = real(key, mode)
        if not cut:
            cut.append(stored.seek(5))
        return stored

    monkeypatch.setattr(default_storage, "open", cut_short)
    needed = JobInput(pk=1, job=submit(), reference="x", artifact=row)
    assert artifacts.fetch(needed, tmp_path, lambda: None).read_bytes() == b"0123456789"
    with open(default_storage.path(row.key), "r+b") as file:
        file.write(b"x")
    with pytest.raises(JobError, match="was changed") as gone:
        artifacts.fetch(needed, tmp_path, lambda: None)
    assert gone.value.code is ErrorCode.input_gone


@pytest.mark.parametrize("full", ["home", "storage"])
def test_intake_looks_at_both_disks(as_ann, monkeypatch, full):
    fuller = {"home": configured.HOME, "storage": configured.STORAGE_ROOT}[full]
    configured.STORAGE_ROOT.mkdir(exist_ok=True)
    usage = artifacts.shutil.disk_usage

    def told(place):
        return usage(place)._replace(free=1000 if place == fuller else 2**50)

    monkeypatch.setattr(artifacts.shutil, "disk_usage", told)
    answer = as_ann.send("/api/jobs/", {"kind": "KITCHEN", "params": {}})
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert not Job.objects.exists()


# --- a bucket ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        BadDay("PUT", "dish.txt", "500", times=3),
        BadDay("PUT", "dish.txt", "503", times=3, seconds=0.2),
        BadDay("PUT", "dish.txt", "lost", times=3),
        BadDay("HEAD", "dish.txt", "503", times=3),
    ],
    ids=["500", "503 slow", "lost PUT answer", "503 to a HEAD"],
)
def test_a_bad_minute_is_waited_for_and_leaves_one_row_and_one_object(s3, submit, bad):
    s3.plan = [bad]
    job = work(submit)
    assert (job.status, job.failures) == (Status.SUCCEEDED, 0)
    assert bad.times == 0
    row = Artifact.objects.get()
    assert [blob.key for blob in blobs.listing("jobs")] == [row.key]
    with default_storage.open(row.key) as stored:
        assert hashlib.sha256(stored.read()).hexdigest() == row.sha256


@pytest.mark.parametrize("what", ["cut", "short", "500"])
def test_a_truncated_answer_is_seen_and_asked_for_again(s3, succeeded, submit, tmp_path, what):
    """`cut` breaks off before its Content-Length, `short` says a Content-Length that is too small."""
    row = succeeded(bytes(range(256)) * 4000).outputs.get()
    needed = JobInput(pk=1, job=submit(), reference="x", artifact=row)
    s3.plan = [BadDay("GET", "dish.txt", what, times=2)]
    got = artifacts.fetch(needed, tmp_path, lambda: None)
    assert hashlib.sha256(got.read_bytes()).hexdigest() == row.sha256
    assert s3.count("GET", "dish.txt") == 3


def test_always_another_file_is_input_gone_and_opens_no_breaker(s3, succeeded, submit, tmp_path):
    row = succeeded().outputs.get()
    needed = JobInput(pk=1, job=submit(), reference="x", artifact=row)
    s3.plan = [BadDay("GET", "dish.txt", "short", times=99)]
    with pytest.raises(JobError, match="was changed") as gone:
        artifacts.fetch(needed, tmp_path, lambda: None)
    assert gone.value.code is ErrorCode.input_gone
    assert breakers.states() == []


def test_a_bucket_that_stays_down_opens_the_breaker_and_jobs_wait_for_it(
    s3, submit, as_ann, succeeded, settings, caplog
):
    kept = succeeded()
    s3.plan = [BadDay("PUT", "/", "503", times=99), BadDay("HEAD", "/", "503", times=99)]
    first = work(submit, price=10)
    assert (first.status, first.failures, first.error_message) == (
        Status.RETRY,
        1,
        "dish.txt: S3 answered 503 SlowDown.",
    )
    second = work(submit)  # its second failure is the fifth in a row
    assert breakers.states()[0][1] == "open"
    asked = len(s3.seen)
    third = work(submit)
    assert (third.status, third.failures, third.error_code) == (Status.RETRY, 0, "storage_error")
    assert len(s3.seen) == asked
    assert second.failures in (0, 1)
    wait = (third.run_after - JobEvent.objects.filter(job=third).latest("id").at).total_seconds()
    assert settings.JOBSITE["CIRCUIT_COOLDOWN"] - 30 < wait <= settings.JOBSITE["CIRCUIT_COOLDOWN"]
    answer = as_ann.get(f"/api/jobs/{kept.pk}/outputs/dish.txt/")
    assert (answer.status_code, int(answer.headers["Retry-After"]) > 500) == (507, True)
    assert "Circuit breaker OPENING: 5 failures within 300s window (threshold: 5)" in caplog.messages
    s3.plan = []
    settings.JOBSITE = {**settings.JOBSITE, "CIRCUIT_COOLDOWN": 0.0}
    Job.objects.filter(pk=third.pk).update(run_after=Now())
    runner.run(lifecycle.claim("cpu"))
    assert Job.objects.get(pk=third.pk).status == Status.SUCCEEDED
    assert breakers.states()[0][1] == "closed"


def test_without_the_database_the_bucket_is_asked_all_the_same(s3, monkeypatch):
    def away(target):
        raise OperationalError("planned")

    monkeypatch.setattr(blobs, "breaker", away)
    assert not connection.in_atomic_block
    assert blobs.listing("jobs") == []


def test_what_a_storage_that_is_down_keeps_is_left_to_the_sweep(s3, succeeded, caplog):
    job = succeeded()
    s3.plan = [BadDay("GET", "list-type", "503", times=99)]
    assert lifecycle.delete(job.pk, by="test") == 1
    assert f"Job {job.pk}: its files are left to the sweep: S3 answered 503 SlowDown" in caplog.messages
    s3.plan = []
    assert artifacts.sweep() == 1


def test_a_lost_lease_discards_its_objects(s3, submit, monkeypatch):
    submit()
    lease = lifecycle.claim("cpu")

    def lost(*arguments):
        raise LeaseLost(lease.job_id, lease.attempt)

    monkeypatch.setattr(lifecycle, "succeed", lost)
    runner.run(lease)
    assert s3.count("PUT", "dish.txt") == 1
    assert blobs.listing("jobs") == []
