"""One attempt in this process: how each end of a run is settled. What needs a killed process is in tests/faults."""

import os
import socket
import subprocess
import time

import pytest
from django.conf import settings
from django.db import OperationalError
from django.db.models.functions import Now

from jobs import artifacts, kinds, lifecycle, procfs, runner, slots
from jobs.attempt import STAGES_MOST
from jobs.engines import process
from jobs.errors import ErrorCode, JobError
from jobs.heartbeat import INTERRUPT, heart
from jobs.kinds.base import Abort
from jobs.models import Artifact, Job, JobEvent, Status
from tests import invariants
from tests.waiting import until
from tokens.models import Account

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _brisk(monkeypatch):
    quick = {"HEARTBEAT_SECONDS": 0.1, "WATCH_SECONDS": 0.05, "ABORT_GRACE": 60.0, "DRAIN_SECONDS": 5.0}
    monkeypatch.setattr(settings, "JOBSITE", settings.JOBSITE | quick)
    monkeypatch.setattr(heart, "_end_if_deaf", lambda idle_since: None)
    yield
    heart.stop()
    invariants.check()


def at(point: str, act, monkeypatch) -> None:
    """Do `act` when the runner passes a named point for the first time."""
    passed = []

    def fault(name):
        if name == point and not passed:
            passed.append(name)
            act()

    for module in (runner, artifacts, lifecycle):
        monkeypatch.setattr(module, "fault", fault)


def run_one() -> Job:
    lease = lifecycle.claim("cpu")
    runner.run(lease)
    return Job.objects.get(pk=lease.job_id)


def test_a_run_publishes_its_output(submit):
    submit()
    job = run_one()
    assert job.status == Status.SUCCEEDED
    output = job.outputs.get()
    assert (output.name, output.content_type) == ("dish.txt", "text/plain")
    with artifacts.default_storage.open(output.key) as stored:
        assert stored.read() == b"attempt 1\n"


def test_progress_and_stage_ride_on_the_beat(submit, monkeypatch):
    seen = []
    plain = lifecycle.beat
    monkeypatch.setattr(
        lifecycle, "beat", lambda lease, **kw: (seen.append((kw["progress"], kw["stage"])), plain(lease, **kw))
    )

    def work(run):
        run.progress(0.5, "cooking")
        until(lambda: (0.5, "cooking") in seen)

    submit()
    monkeypatch.setattr(kinds.get("KITCHEN"), "run", work, raising=False)
    run_one()


def ended_with() -> list[tuple[str, float]] | None:
    return JobEvent.objects.exclude(status__in=[Status.QUEUED, Status.RUNNING]).get().stages


@pytest.mark.parametrize("output", [True, False])
def test_what_each_stage_took_is_kept_with_the_end(submit, output):
    submit(seconds=0.3, output=output)
    began = time.monotonic()
    run_one()
    took = dict(ended_with())
    assert list(took) == ["claimed", "cooking", "storing"][: 3 if output else 2]
    assert 0.25 < took["cooking"] <= sum(took.values()) < time.monotonic() - began


def test_a_failed_attempt_keeps_its_stages_too(submit, monkeypatch):
    def work(run):
        run.progress(0.5, "cooking")
        time.sleep(0.1)
        raise JobError(ErrorCode.bad_input)

    submit()
    monkeypatch.setattr(kinds.get("KITCHEN"), "run", work, raising=False)
    run_one()
    assert dict(ended_with())["cooking"] >= 0.09


def test_stages_are_bounded_and_told_by_name(submit, monkeypatch):
    def work(run):
        for number in range(50):
            run.progress(0.1, f"encoding: clips.{number}")
        for number in range(50):
            run.progress(0.2, f"{'part' * 20}{number}"[-60:])

    submit()
    monkeypatch.setattr(kinds.get("KITCHEN"), "run", work, raising=False)
    run_one()
    names = [name for name, _ in ended_with()]
    assert names[:2] == ["claimed", "encoding"] and len(names) == len(set(names)) <= STAGES_MOST + 1
    assert max(map(len, names)) == 40


def test_a_kind_that_names_no_stage_keeps_none(submit, monkeypatch):
    submit()
    monkeypatch.setattr(kinds.get("KITCHEN"), "run", lambda run: None, raising=False)
    run_one()
    assert ended_with() is None


def test_a_cancel_is_seen_while_running(ann, submit):
    import threading

    from django.db import connections

    job = submit(seconds=60)
    lease = lifecycle.claim("cpu")

    def cancel():
        try:
            until(lambda: Job.objects.get(pk=job.pk).stage == "cooking", seconds=10)
            lifecycle.cancel(job.pk, by="test")
        finally:
            connections.close_all()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    runner.run(lease)  # returns at once, not after a minute
    canceller.join()
    assert (Job.objects.get().status, Account.objects.get(pk=ann.pk).balance) == (Status.CANCELED, 1000)


@pytest.mark.parametrize("point", ["run.starting", "run.done", "publish.stored", "publish.before_commit"])
def test_a_cancel_at_any_point_leaves_no_output(ann, submit, monkeypatch, point):
    job = submit()
    at(point, lambda: lifecycle.cancel(job.pk, by="test"), monkeypatch)
    assert run_one().status == Status.CANCELED
    assert not Artifact.objects.exists()
    assert Account.objects.get(pk=ann.pk).balance == 1000


@pytest.mark.parametrize("fails", [False, True])
def test_the_work_folder_is_made_when_asked_for_and_gone_afterwards(submit, monkeypatch, fails):
    seen = []

    def work(run):
        seen.append(list(settings.WORK_ROOT.glob("*")))
        seen.append((run.workdir.stat().st_mode & 0o777, list(run.workdir.iterdir())))
        (run.workdir / "dish.txt").write_text("half done")
        seen.append(list(settings.WORK_ROOT.glob("*")) == [run.workdir])
        if fails:
            raise JobError(ErrorCode.ffmpeg_error)

    submit()
    monkeypatch.setattr(kinds.get("KITCHEN"), "run", work, raising=False)
    assert run_one().status == (Status.FAILED if fails else Status.SUCCEEDED)
    assert seen == [[], (0o700, []), True]
    assert not list(settings.WORK_ROOT.glob("*"))


@pytest.mark.parametrize(
    ("params", "code", "status"),
    [
        ({"fail_times": 1, "code": "ffmpeg_error"}, "ffmpeg_error", Status.FAILED),
        ({"fail_times": 1, "code": "internal_error"}, "internal_error", Status.RETRY),
        ({"gobble": True}, "out_of_memory", Status.RETRY),
    ],
)
def test_what_a_kind_raises_settles_its_job(submit, params, code, status):
    submit(**params)
    job = run_one()
    assert (job.status, job.error_code) == (status, code)


def test_a_kinds_own_bug_is_an_internal_error(submit, monkeypatch):
    submit()
    monkeypatch.setattr(kinds.get("KITCHEN"), "run", lambda run: 1 / 0, raising=False)
    job = run_one()
    assert (job.status, job.error_code) == (Status.RETRY, "internal_error")
    assert "ZeroDivision" not in job.error_message


def test_rows_that_the_database_will_never_take_are_an_internal_error_at_once(submit, monkeypatch):
    """Tried again and again, they would hold the slot until the run's limit, and cost the process."""

    def work(run):
        for name in ("first", "second"):
            (run.workdir / name).write_text(name)
            run.output(run.workdir / name, "dish.txt", "text/plain")

    submit()
    monkeypatch.setattr(kinds.get("KITCHEN"), "run", work, raising=False)
    job = run_one()
    assert (job.status, job.error_code, job.outputs.count()) == (Status.RETRY, "internal_error", 0)


@pytest.mark.parametrize("words", ["a\0b", "half a pair: \ud83d"])
def test_an_error_in_words_that_no_database_takes_settles_its_job(submit, monkeypatch, words):
    def work(run):
        run.progress(0.1, words)
        until(lambda: Job.objects.get(pk=run.job_id).stage.startswith(words[0]))
        raise JobError(ErrorCode.ffmpeg_error, words)

    submit()
    monkeypatch.setattr(kinds.get("KITCHEN"), "run", work, raising=False)
    job = run_one()
    assert (job.status, job.error_code, job.error_message[0]) == (Status.FAILED, "ffmpeg_error", words[0])


def test_the_run_limit_ends_a_run(submit):
    job = submit(seconds=60)
    Job.objects.filter(pk=job.pk).update(run_limit=0.3)
    done = run_one()
    assert (done.status, done.error_code) == (Status.FAILED, "timeout")


def test_a_stall_ends_a_run_that_does_not_look(submit):
    """The kind sleeps without progress and never checks: it is interrupted."""
    job = submit(seconds=60, stall=True)
    Job.objects.filter(pk=job.pk).update(stall_limit=0.3)
    done = run_one()
    assert (done.status, done.error_code) == (Status.RETRY, "stalled")


def test_a_settle_whose_answer_is_lost_is_found_done(submit, monkeypatch):
    job = submit()

    def lost():
        raise OperationalError("the answer was lost")

    at("settle.after", lost, monkeypatch)  # the commit is done
    assert run_one().status == Status.SUCCEEDED
    assert job.events.filter(status=Status.SUCCEEDED).count() == 1


def test_a_database_that_is_away_for_a_moment_loses_nothing(submit, monkeypatch):
    submit()
    plain, tries = lifecycle.succeed, []

    def away(lease, stored, stages):
        tries.append(1)
        if len(tries) < 3:
            raise OperationalError("gone")
        plain(lease, stored, stages)

    monkeypatch.setattr(lifecycle, "succeed", away)
    assert run_one().status == Status.SUCCEEDED
    assert len(tries) == 3


def test_a_claim_whose_answer_is_lost_is_handed_back(submit, monkeypatch):
    job = submit()
    heart.start(["cpu"])
    until(lambda: heart.slot is not None)
    plain, lost = lifecycle.claim, []

    def claim(queue, slot_id):
        lease = plain(queue, slot_id)
        if not lost:
            lost.append(lease)
            raise OperationalError("the answer was lost")
        return lease

    monkeypatch.setattr(lifecycle, "claim", claim)
    assert runner.drain("cpu", seconds=1) == 1
    done = Job.objects.get(pk=job.pk)
    assert (done.status, done.attempt, done.failures) == (Status.SUCCEEDED, 2, 0)


def test_a_lost_lease_discards_what_was_stored(submit, monkeypatch):
    job = submit()

    def taken_over():
        lifecycle.settle(Job.objects.all(), lambda row: JobError(ErrorCode.worker_timeout), by="test")
        Job.objects.update(run_after=Now())
        lifecycle.claim("cpu")

    at("publish.before_commit", taken_over, monkeypatch)
    run_one()
    fresh = Job.objects.get(pk=job.pk)
    assert (fresh.status, fresh.attempt, fresh.outputs.count()) == (Status.RUNNING, 2, 0)
    assert artifacts.orphans() == []


def test_a_thread_that_notices_the_end_does_not_notice_it_for_the_kind(submit, monkeypatch):
    """The kind hangs beside its output's hash: it is interrupted, and its process is not killed for it."""
    job = submit()

    def work(run):
        (run.workdir / "dish.txt").write_text("done")
        run.end(JobError(ErrorCode.timeout))
        run.output(run.workdir / "dish.txt", "dish.txt", "text/plain")
        with pytest.raises(Abort):
            run.outputs[0].sealed.result()
        until(lambda: False, seconds=60)  # never looks

    monkeypatch.setattr(kinds.get("KITCHEN"), "run", work, raising=False)
    monkeypatch.setattr(settings, "JOBSITE", settings.JOBSITE | {"ABORT_GRACE": 30.0})
    run_one()
    job.refresh_from_db()
    assert (job.status, job.error_code) == (Status.FAILED, "timeout")


def test_nothing_runs_on_without_a_heartbeat(submit, monkeypatch):
    submit(seconds=60)
    monkeypatch.setattr(heart, "lives", lambda: False)
    done = run_one()
    assert (done.status, done.error_code) == (Status.RETRY, "internal_error")


def test_a_leaked_child_does_not_outlive_its_run(submit, monkeypatch):
    born = []
    plain = os.posix_spawnp
    monkeypatch.setattr(os, "posix_spawnp", lambda *args: (born.append(plain(*args)), born[-1])[1])
    submit(leak_child=True)
    run_one()
    assert born and all(procfs.started(pid) is None for pid in born)


def test_a_child_that_another_thread_reaps_does_not_end_the_runs_end(monkeypatch):
    """Between the list and the kill it may be gone: here all of it is."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    seen = iter([{gone.pid}, set()])
    monkeypatch.setattr(slots, "children", lambda: next(seen))
    slots.kill_children(except_for=set())
    assert next(seen, None) is None


def test_pids_of_another_namespace_are_not_compared_with_ours(monkeypatch):
    mine = slots.boot_id()
    assert slots.boot_id() == mine and len(mine) == 36
    monkeypatch.setattr(os, "readlink", lambda path: "pid:[1]")
    assert slots.boot_id() != mine


def test_dead_work_folders_are_swept(tmp_path):
    dead = settings.WORK_ROOT / f"{socket.gethostname()}.999999999.1.x.1"
    dead.mkdir(parents=True)
    assert runner.sweep_work_folders() == 1
    assert not dead.exists()


def test_the_folder_of_a_host_whose_name_goes_on_where_ours_ends_is_left_alone():
    """`web` and `web.example` on one storage, or the same host under its new name: its sweep must not break either."""
    theirs = settings.WORK_ROOT / f"{socket.gethostname()}.example.999999999.1.x.1"
    theirs.mkdir(parents=True)
    assert runner.sweep_work_folders() == 0
    theirs.rmdir()


def test_an_interrupt_that_comes_while_an_error_is_judged_breaks_no_end(submit, monkeypatch):
    """The kind raises at the very moment in which the heartbeat loses its patience."""
    plain = runner._unexpected

    def judged(attempt, error):
        os.kill(os.getpid(), INTERRUPT)
        return plain(attempt, error)

    submit()
    monkeypatch.setattr(runner, "_unexpected", judged)
    monkeypatch.setattr(kinds.get("KITCHEN"), "run", lambda run: 1 / 0, raising=False)
    job = run_one()
    assert (job.status, job.error_code) == (Status.RETRY, "internal_error")


def test_walls_are_known():
    assert process.walls() is not None
