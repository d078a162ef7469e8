"""Every slot works on something long: the watchmen have their own worker and end a dead job all the same."""

from jobs import lifecycle
from jobs.models import Status
from tests.faults.rig import M, T, balance, cook, final, fresh, is_running, until


def test_a_dead_job_is_ended_while_all_slots_are_busy(platform, ann, bob):
    platform.up()
    long = [cook(bob, seconds=60), cook(bob, seconds=60)]
    until(lambda: all(is_running(job)() for job in long), seconds=20)
    platform.worker("dying", slots=1)
    dead = [cook(ann, seconds=60, max_attempts=1), cook(ann, seconds=60)]
    until(is_running(dead[0]), seconds=20)
    platform.kill("dying")
    (lost,) = final(dead[0], seconds=T + M + 20)
    assert (lost.status, lost.error_code) == (Status.FAILED, "worker_lost")
    assert all(is_running(job)() for job in long)
    assert fresh(dead[1]).status == Status.QUEUED  # waits its turn, and is never judged for it
    for job in [*long, dead[1]]:
        lifecycle.cancel(job.pk, by="test")
    assert balance(ann) == balance(bob) == 1000
    platform.worker("heir", slots=1)  # deletes the dead one's work folders
