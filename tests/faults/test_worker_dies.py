"""F01, F02, F03: a worker or one of its pool children is killed, or runs out of memory."""

import os
import resource
import signal
from pathlib import Path

import pytest

from jobs.models import Status
from tests.faults.rig import M, T, balance, cook, ffmpegs, final, fresh, is_running, render, until

POINTS = [
    "claim.after",
    "run.starting",
    "run.done",
    "publish.stored",
    "publish.before_commit",
    "settle.before_commit",
    "settle.after",
]


def test_a_kitchen_job_runs(platform, ann):
    """The rig itself: a job runs through real processes."""
    platform.up()
    job = cook(ann, seconds=0.3)
    (done,) = final(job)
    assert done.status == Status.SUCCEEDED, done.error_message
    assert done.outputs.get().name == "dish.txt"


def test_main_process_killed_mid_run(platform, ann):
    """Its pool children and their FFmpeg end with it; another worker does both jobs."""
    platform.env["FFMPEG"] = platform.slow_ffmpeg()
    platform.up()
    jobs = [cook(ann, seconds=3), render(ann, seconds=3)]
    until(lambda: all(is_running(job)() for job in jobs) and ffmpegs(), seconds=30)
    old, pool = ffmpegs(), platform.pool()
    platform.kill("worker")
    until(lambda: not set(old) & set(ffmpegs()), seconds=10)
    until(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in pool), seconds=10)
    platform.worker("second")
    for done in final(*jobs, seconds=T + M + 40):
        assert (done.status, done.attempt, done.failures) == (Status.SUCCEEDED, 2, 1)


def test_killed_at_every_named_point(platform, ann):
    """One job, killed once at each point: no attempt leaves anything behind; after the last commit nothing is lost."""
    platform.env |= {"JOB_MONITOR_SECONDS": "0.3", "JOB_DISPATCH_SECONDS": "0.2"}
    platform.env |= {"JOB_BACKOFF_INITIAL": "0.05", "JOB_BACKOFF_MAX": "0.1"}
    platform.broker()
    platform.worker(slots=4, faults=";".join(f"{point}=kill" for point in POINTS))  # a pool refills every 5 s
    platform.beat()
    job = cook(ann, max_attempts=len(POINTS) + 3)
    (done,) = final(job, seconds=60)
    until(lambda: platform.passed("settle.after"))
    assert all(platform.passed(point) for point in POINTS)
    assert (done.status, done.attempt, done.failures) == (Status.SUCCEEDED, len(POINTS), len(POINTS) - 1)
    codes = set(done.events.filter(status=Status.RETRY).values_list("code", flat=True))
    assert codes <= {"worker_lost", "worker_timeout"}  # whichever the monitor saw first, the process gone or T over
    assert done.outputs.get().attempt == done.attempt


@pytest.mark.once
def test_main_process_killed_at_every_named_point(platform, ann):
    """Seven workers, each loses its main while its child is at another point: each job ends once, charged once."""
    platform.broker()
    platform.beat()
    jobs = [cook(ann, max_attempts=len(POINTS) + 1) for _ in POINTS]
    command = ["worker", "-Q", "cpu", "-c", "1", "--without-gossip", "--without-mingle"]
    for point in POINTS:
        platform.celery(point, *command, "-n", point, JOBSITE_FAULTS=f"{point}=kill_main")
    until(lambda: all(platform.passed(point) for point in POINTS), seconds=60)
    until(lambda: all(platform.children[point].poll() is not None for point in POINTS), seconds=20)
    platform.worker("last")
    for done in final(*jobs, seconds=T + M + 40):
        assert (done.status, done.outputs.get().attempt) == (Status.SUCCEEDED, done.attempt)
    assert balance(ann) == 1000 - sum(job.price for job in jobs)


def test_one_pool_child_killed_hits_only_its_job(platform, ann):
    platform.up()
    jobs = [cook(ann, seconds=2), cook(ann, seconds=2)]
    until(lambda: all(is_running(job)() for job in jobs), seconds=20)
    os.kill(fresh(jobs[0]).slot.pid, signal.SIGKILL)
    hit, spared = final(*jobs, seconds=T + M + 25)
    assert (hit.status, hit.attempt) == (Status.SUCCEEDED, 2)
    assert (spared.status, spared.attempt) == (Status.SUCCEEDED, 1)


def test_out_of_memory_hits_only_its_job(platform, ann):
    """A child with a real limit runs out of memory: the job says so, neighbour and child run on."""
    platform.broker()
    platform.worker()
    pool = platform.pool()
    for pid in pool:
        size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (size + 512 * 1024**2, resource.RLIM_INFINITY))
    jobs = [cook(ann, seconds=2), cook(ann, gobble=True, max_attempts=1)]
    spared, hit = final(*jobs)
    assert (hit.status, hit.error_code) == (Status.FAILED, "out_of_memory")
    assert (spared.status, spared.attempt) == (Status.SUCCEEDED, 1)
    assert final(cook(ann))[0].status == Status.SUCCEEDED
    assert sorted(platform.pool()) == sorted(pool)
    assert balance(ann) == 1000 - 2 * hit.price
