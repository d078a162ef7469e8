"""F06: a worker is told to end while it runs, starts or claims. What it ran is handed back and spends nothing."""

import os
import signal

from jobs import dispatch, lifecycle, procfs
from jobs.models import Status
from tests.faults.rig import balance, cook, descendants, ffmpegs, final, fresh, is_running, render, until

GRACE = 20  # seconds: the grace of a busy machine


def ended(child) -> int:
    return child.wait(GRACE)


def test_what_runs_is_handed_back(platform, ann):
    """FFmpeg goes at once, nothing is spent; a job with one attempt is FAILED and refunded; others end the rest."""
    platform.env["FFMPEG"] = platform.slow_ffmpeg()
    platform.broker()
    first = platform.worker("first", slots=3)
    cooking, drawing = cook(ann, seconds=2), render(ann, seconds=2)
    once = cook(ann, seconds=60, max_attempts=1)
    until(lambda: all(is_running(job)() for job in (cooking, drawing, once)) and ffmpegs(), seconds=30)
    first.terminate()
    assert ended(first) == 0
    assert not ffmpegs()
    for job in map(fresh, (cooking, drawing)):
        assert (job.status, job.failures, job.error_code) == (Status.RETRY, 0, "worker_shutdown")
    once = fresh(once)
    assert (once.status, once.error_code) == (Status.FAILED, "worker_shutdown")
    assert balance(ann) == 1000 - cooking.price - drawing.price
    platform.worker("second")
    for done in final(cooking, drawing, seconds=40):
        assert (done.status, done.attempt, done.failures) == (Status.SUCCEEDED, 2, 0)


def test_told_twice_while_it_claims_and_as_a_group_while_it_runs_what_ignores_it(platform, ann):
    """It ends by itself within the grace, leaves no process, and its job spends nothing."""
    platform.broker()
    stubborn, claiming = cook(ann, seconds=60, stubborn=True), cook(ann, seconds=60)
    group = platform.worker("group", slots=1)
    until(is_running(stubborn), seconds=20)
    twice = platform.worker("twice", slots=1, faults="claim.after=sleep:2")
    dispatch.send("cpu")  # both jobs may have come with one nudge, and no Beat is here to see it
    until(lambda: platform.passed("claim.after"), seconds=20)
    family = descendants(group.pid) | descendants(twice.pid)
    os.killpg(group.pid, signal.SIGTERM)
    twice.terminate()
    twice.terminate()
    assert [ended(group), ended(twice)] == [0, 0]
    until(lambda: not any(map(procfs.started, family)), seconds=10)
    for job in map(fresh, (stubborn, claiming)):
        assert (job.status, job.failures, job.error_code) == (Status.RETRY, 0, "worker_shutdown")
        lifecycle.cancel(job.pk, by="test")
    platform.worker("heir", slots=1)  # deletes the work folder of the child that had to be killed


def test_told_and_then_killed(platform, ann):
    """Patience with it ended before its grace: a watchman finds the job, another worker goes on with it."""
    platform.broker()
    worker = platform.worker("first", slots=1, JOB_ABORT_GRACE="60")
    job = cook(ann, seconds=120, stubborn=True)
    until(is_running(job), seconds=20)
    worker.terminate()
    until(lambda: "Warm shutdown" in platform.log("first"), seconds=20)
    platform.kill("first")
    platform.worker("second", slots=1)
    platform.beat()
    until(is_running(job, attempt=2), seconds=30)
    assert fresh(job).failures == 1
    assert job.events.get(status=Status.RETRY).code == "worker_lost"
    lifecycle.cancel(job.pk, by="test")


def test_a_solo_worker_hands_back_too(platform, ann):
    """Its main process runs the job itself, and keeps Celery's own handler of SIGTERM."""
    platform.broker()
    job = cook(ann, seconds=60)
    solo = platform.celery("solo", "worker", "-P", "solo", "-Q", "cpu", "-n", "solo@%h", "--without-mingle")
    until(lambda: "ready" in platform.log("solo"), seconds=30)
    dispatch.send("cpu")
    until(is_running(job), seconds=20)
    solo.terminate()
    assert ended(solo) == 0
    row = fresh(job)
    assert (row.status, row.failures, row.error_code) == (Status.RETRY, 0, "worker_shutdown")
    lifecycle.cancel(job.pk, by="test")
