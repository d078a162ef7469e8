"""F01, F02: a worker or one of its pool children is killed."""

import os
import signal

from jobs.models import Status
from tests.faults.rig import M, T, cook, final, fresh, is_running, until


def test_a_kitchen_job_runs(platform, ann):
    """The rig itself: a job runs through real processes."""
    platform.up()
    job = cook(ann, seconds=0.3)
    (done,) = final(job)
    assert done.status == Status.SUCCEEDED, done.error_message
    assert done.outputs.get().name == "dish.txt"


def test_main_process_killed_mid_run(platform, ann):
    platform.up()
    job = cook(ann, seconds=4)
    until(is_running(job), seconds=20)
    platform.kill("worker")
    platform.worker("second")
    (done,) = final(job, seconds=T + M + 25)
    assert (done.status, done.attempt, done.failures) == (Status.SUCCEEDED, 2, 1)


def test_one_pool_child_killed_hits_only_its_job(platform, ann):
    platform.up()
    jobs = [cook(ann, seconds=4), cook(ann, seconds=4)]
    until(lambda: all(is_running(job)() for job in jobs), seconds=20)
    os.kill(fresh(jobs[0]).slot.pid, signal.SIGKILL)
    hit, spared = final(*jobs, seconds=T + M + 25)
    assert (hit.status, hit.attempt) == (Status.SUCCEEDED, 2)
    assert (spared.status, spared.attempt) == (Status.SUCCEEDED, 1)
