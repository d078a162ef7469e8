"""F28, F29, F32: the storage or the work folder takes no more, is read-only, hangs, or is a bucket on a bad day:
`storage_error`, tried again or refunded, nothing published that is not whole."""

import errno
import hashlib
import os
import resource
import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings as configured
from django.core.files import move
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import transaction

from jobs import artifacts, blobs, intake, kinds, lifecycle, procfs
from jobs.attempt import Attempt
from jobs.errors import ErrorCode, JobError
from jobs.models import Artifact, JobEvent, Status, Upload
from tests import invariants, media_files, s3_server
from tests.faults.rig import balance, cook, final, fresh, until
from tests.s3_server import BadDay
from tokens.models import Account

MOST_BYTES = 8 * 1024**2  # more than SQLite's journal and the logs need


def failed_with_storage_error(job) -> bool:
    return JobEvent.objects.filter(job=job, status=Status.RETRY, code="storage_error").exists()


@pytest.fixture
def blocked_storage(transactional_db):
    """The storage's folder of outputs is a file: nothing can be stored in it until `unlink`."""
    folder = Path(default_storage.path("jobs"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.touch()
    yield folder
    if folder.is_file():
        folder.unlink()


def test_a_storage_that_refuses_fails_attempts_and_refunds_at_the_last(platform, ann, blocked_storage):
    platform.up()
    once, until_it_works = cook(ann, max_attempts=1), cook(ann, max_attempts=10)
    (done,) = final(once)
    assert (done.status, done.error_code) == (Status.FAILED, "storage_error")
    assert str(configured.HOME) not in done.error_message
    until(lambda: failed_with_storage_error(until_it_works), seconds=20)
    assert not Artifact.objects.exists()
    blocked_storage.unlink()
    (done,) = final(until_it_works)
    assert (done.status, done.outputs.count()) == (Status.SUCCEEDED, 1)
    assert Account.objects.get(pk=ann.pk).balance == 1000 - done.price


def test_a_worker_that_may_write_no_more_bytes(platform, ann):
    """RLIMIT_FSIZE stands for a full disk: the kind's own write is cut in the middle."""
    platform.up()
    for pid in platform.pool():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (MOST_BYTES, resource.RLIM_INFINITY))
    large = cook(ann, bytes=2 * MOST_BYTES)
    small = cook(ann, bytes=10)
    until(lambda: failed_with_storage_error(large), seconds=30)
    assert final(small)[0].status == Status.SUCCEEDED
    (done,) = final(large)
    assert (done.status, done.error_code, done.failures) == (Status.FAILED, "storage_error", 3)
    assert Account.objects.get(pk=ann.pk).balance == 1000 - small.price


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_copy_to_another_disk_that_fills_up_on_the_way(ann, monkeypatch, tmp_path, part):
    """Also where only the last piece is cut short, which the system call tells by its count alone."""

    def other_disk(source, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    job = cook(ann)
    lease = lifecycle.claim("cpu")
    attempt = Attempt(lease, tmp_path / "work")
    file = attempt.workdir / "film.mp4"
    file.write_bytes(os.urandom(100_000))
    attempt.output(file, "film.mp4")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patched:
        patched.setattr(move.os, "rename", other_disk)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(part * 100_000), before[1]))
        try:
            with pytest.raises(JobError) as refused:
                artifacts.store(lease.job_id, lease.attempt, attempt.outputs)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            attempt.close()
    assert refused.value.code is ErrorCode.storage_error
    lifecycle.fail(lease, refused.value)
    assert fresh(job).status == Status.RETRY
    invariants.check()  # and nothing of it is left in the storage


@pytest.fixture
def read_only_storage(transactional_db):
    """The storage's folder is mounted read-only until it is called; where this user may mount nothing, a file is in
    the way instead."""
    folder = Path(configured.STORAGE_ROOT)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    here = str(folder)
    mounted = subprocess.run(["mount", "--bind", here, here], capture_output=True).returncode == 0
    if mounted:
        subprocess.run(["mount", "-o", "remount,bind,ro", here], check=True)
    else:
        (folder / "jobs").touch()
    left = [1]

    def heal() -> None:
        if not left:
            return
        left.clear()
        if mounted:
            subprocess.run(["umount", "-l", here], check=True)
        else:
            (folder / "jobs").unlink()

    yield heal
    heal()


def test_a_read_only_storage_is_waited_for(platform, ann, read_only_storage):
    platform.up()
    job, spent = cook(ann, max_attempts=10), cook(ann, max_attempts=1)
    assert final(spent)[0].error_code == "storage_error"
    until(lambda: failed_with_storage_error(job), seconds=20)
    assert not Artifact.objects.exists()
    read_only_storage()
    (done,) = final(job)
    assert (done.status, done.outputs.count()) == (Status.SUCCEEDED, 1)
    assert Account.objects.get(pk=ann.pk).balance == 1000 - done.price


def test_a_storage_that_hangs_holds_one_attempt_and_no_worker(platform, ann):
    """A FIFO that nobody writes to stands for a dead network disk: opening it never returns, and nothing can end the
    thread that did. Its process is ended, and no thread is left."""
    content = media_files.clip()
    sha256 = hashlib.sha256(content).hexdigest()
    clips = [
        Upload.objects.create(
            owner=ann, name="clip", key=f"uploads/{n}", bytes=len(content), sha256=sha256, content_type="video/mp4"
        )
        for n in range(2)
    ]
    hung = Path(default_storage.path(default_storage.save(clips[0].key, ContentFile(content))))
    hung.unlink()
    os.mkfifo(hung)
    default_storage.save(clips[1].key, ContentFile(content))
    kind = kinds.get("STITCH")
    params = intake.checked_params(kind, {"clips": [f"upload:{clip.pk}" for clip in clips]})
    platform.up()
    before = balance(ann)
    with transaction.atomic():
        job, _ = lifecycle.submit(ann.pk, "STITCH", params, max_attempts=2)
        type(job).objects.filter(pk=job.pk).update(stall_limit=1)
    (done,) = final(job, seconds=60)
    assert (done.status, done.error_code, done.attempt) == (Status.FAILED, "stalled", 2)
    assert balance(ann) == before
    assert final(cook(ann))[0].status == Status.SUCCEEDED
    until(lambda: platform.log("worker").count("ignores its end; this worker process is killed") == 2, seconds=20)
    until(lambda: len(platform.pool()) == 2, seconds=20)
    assert max(len(os.listdir(f"/proc/{pid}/task")) for pid in platform.pool()) < 8


@pytest.fixture
def frozen_storage(transactional_db, tmp_path):
    """The storage's folder is a disk of its own, frozen until it is called: whoever writes waits in the kernel (state
    D), where no signal reaches them."""
    folder, image = str(configured.STORAGE_ROOT), tmp_path / "disk"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(image, "wb") as disk:
        disk.truncate(32 * 1024**2)
    made = subprocess.run(["mkfs.ext4", "-q", image], capture_output=True)
    if made.returncode or subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True).returncode:
        pytest.skip("This user may mount no disk: there is none to freeze.")
    subprocess.run(["fsfreeze", "--freeze", folder], check=True)
    frozen = [1]

    def thaw() -> None:
        if frozen:
            frozen.clear()
            subprocess.run(["fsfreeze", "--unfreeze", folder], check=True)

    yield thaw
    thaw()
    until(lambda: subprocess.run(["umount", folder], capture_output=True).returncode == 0, seconds=20)


@pytest.mark.once
def test_a_disk_that_freezes_while_it_is_written_to_holds_no_job(frozen_storage, platform, ann):
    """The attempt is given up in time though its process cannot be ended; the log says so, and it dies once it can."""
    platform.broker()
    platform.worker(slots=1)
    platform.beat()
    (stuck,) = platform.pool()
    job = cook(ann, limits={"run_limit": 2.0})
    until(lambda: procfs.stat(stuck)[:1] == ["D"], seconds=20)
    until(lambda: fresh(job).status in (Status.FAILED, Status.RETRY), seconds=30)
    given_up = fresh(job)
    ends = {Status.FAILED: "timeout", Status.RETRY: "worker_timeout"}  # its own clock or the monitor: who comes first
    assert given_up.error_code == ends[given_up.status]
    until(lambda: "ignores its end; this worker process is killed" in platform.log("worker"), seconds=20)
    assert procfs.stat(stuck)[:1] == ["D"]
    frozen_storage()
    until(lambda: stuck not in platform.pool(), seconds=20)
    if given_up.status == Status.FAILED:
        lifecycle.retry(job.pk, by="test")
    (done,) = final(job)
    assert (done.status, done.attempt, done.outputs.count()) == (Status.SUCCEEDED, 2, 1)
    assert balance(ann) == 1000 - done.price


@pytest.fixture
def bad_bucket(settings):
    """The storage of this process and of those it starts is a bucket behind a proxy, which this is."""
    with s3_server.proxied() as proxy, pytest.MonkeyPatch.context() as patched:
        bucket = f"jobsite-{uuid4().hex[:12]}"
        settings.STORAGES = {**settings.STORAGES, "default": s3_server.storage(bucket)}
        patched.setenv("STORAGE_URL", s3_server.storage_url(bucket, endpoint=proxy.address))
        patched.setenv("AWS_ACCESS_KEY_ID", s3_server.KEY_ID)
        patched.setenv("AWS_SECRET_ACCESS_KEY", s3_server.SECRET)
        patched.setenv("RETRY_INITIAL_DELAY", "0.05")
        yield proxy


def test_a_bucket_on_a_bad_day_through_real_workers(bad_bucket, platform, ann):
    bad_bucket.plan = [
        BadDay("PUT", "dish.txt", "500", times=2),
        BadDay("PUT", "dish.txt", "lost", times=2),
        BadDay("PUT", "dish.txt", "503", times=1, seconds=1.0),
        BadDay("HEAD", "dish.txt", "503", times=2),
    ]
    platform.up()
    done = final(*[cook(ann) for _ in range(4)], seconds=60)
    assert [job.status for job in done] == [Status.SUCCEEDED] * 4
    assert sum(bad.times for bad in bad_bucket.plan) == 0
    assert {blob.key for blob in blobs.listing("jobs")} == set(Artifact.objects.values_list("key", flat=True))
    assert s3_server.SECRET not in "".join(platform.log(name) for name in platform.logs)
    assert "Save file dish.txt for job" in platform.log("worker")
