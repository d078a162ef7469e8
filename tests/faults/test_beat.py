"""F39: Beat is dead, doubled or frozen: each period's work is done once, by whoever comes first."""

import signal
from itertools import pairwise

from jobs.models import CleanupRun, Status
from tests.faults.rig import cook, final, freeze, until


def cleanups() -> list:
    """When the cleanup ran, its period being 2 seconds here; each run leaves a row."""
    return list(CleanupRun.objects.order_by("pk").values_list("started_at", flat=True))


def one_a_period() -> bool:
    """A second effect of a period would come at once after the first: one worker does both."""
    return all((later - earlier).total_seconds() > 0.3 for earlier, later in pairwise(cleanups()))


def test_two_beats_have_one_effect_and_one_of_them_is_enough(platform, ann):
    platform.up()
    platform.beat("second")
    until(lambda: len(cleanups()) >= 3, seconds=30)
    assert one_a_period()

    platform.kill("beat")
    ran = len(cleanups())
    until(lambda: len(cleanups()) > ran, seconds=30)

    freeze(platform.children["second"].pid)  # nothing runs, until it wakes
    job = cook(ann, fail_times=1, code="storage_error")  # its second attempt needs a watchman's nudge
    until(lambda: job.events.filter(status=Status.RETRY).exists(), seconds=20)
    platform.kill("second", signal.SIGCONT)
    assert final(job)[0].status == Status.SUCCEEDED
    ran = len(cleanups())
    until(lambda: len(cleanups()) > ran, seconds=30)
    assert one_a_period()  # no burst of what was slept through


def test_a_dead_beat_is_red_and_a_new_one_goes_on(platform, ann):
    platform.up()
    platform.web()
    until(platform.is_well, seconds=30)
    platform.kill("beat")
    job = cook(ann, fail_times=1, code="storage_error")
    until(lambda: platform.get("/health")[0] == 503, seconds=30)
    until(job.events.filter(status=Status.RETRY).exists, seconds=30)
    platform.beat("new")
    assert final(job)[0].status == Status.SUCCEEDED
    until(platform.is_well, seconds=30)
