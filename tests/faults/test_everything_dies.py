"""F46: every process is killed at once, as by a power cut, and all is started again: nothing is done by hand."""

from jobs.models import Job, Status
from tests.faults.rig import cook, final, is_running, until


def test_all_jobs_end_after_everything_was_killed(platform, ann, bob):
    platform.up()
    running = [cook(ann, seconds=2), cook(bob, seconds=2)]
    until(lambda: all(is_running(job)() for job in running), seconds=20)
    waiting = [cook(ann), cook(bob), cook(bob, fail_times=1), cook(ann, fail_times=1, code="bad_input")]
    for name in platform.children:
        platform.kill(name, wait=False)
    for child in platform.children.values():
        child.wait(20)
    platform.children.clear()
    assert Job.objects.filter(status=Status.RUNNING).count() == 2
    meanwhile = cook(ann)  # the web process of another host is still there

    platform.up()
    ended = final(*running, *waiting, meanwhile, seconds=60)
    assert [job.status for job in ended] == [Status.SUCCEEDED] * 5 + [Status.FAILED, Status.SUCCEEDED]
    assert all(job.attempt == 2 for job in ended[:2])
