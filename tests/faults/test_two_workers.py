"""Two workers and many nudges: each job is claimed once."""

from jobs import dispatch
from jobs.models import Status
from tests.faults.rig import cook, final, is_running, until


def test_two_workers_share_the_jobs(platform, ann):
    platform.broker()
    platform.worker("one")
    platform.worker("two")
    only = cook(ann, seconds=1)
    for _ in range(50):
        dispatch.send("cpu")
    until(is_running(only), seconds=20)
    jobs = [cook(ann, seconds=0.1 * (number % 3)) for number in range(16)]
    for _ in range(50):
        dispatch.send("cpu")
    for done in final(only, *jobs, seconds=60):
        assert (done.status, done.attempt) == (Status.SUCCEEDED, 1)
        assert done.events.filter(status=Status.RUNNING).count() == 1
