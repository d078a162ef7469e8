"""Time limits: of FFmpeg, and of code that ignores every exception; and what a run leaves behind."""

from jobs import procfs
from jobs.models import Status
from tests.faults.rig import (
    balance,
    children_of,
    command,
    cook,
    descendants,
    ffmpegs,
    final,
    fresh,
    is_running,
    render,
    until,
)


def test_time_limit_in_ffmpeg_and_in_code_that_ignores_it(platform, ann):
    """Both are FAILED and refunded; FFmpeg is killed, and so is the deaf code's process, which the pool replaces."""
    platform.env |= {"FFMPEG": platform.slow_ffmpeg(), "JOB_ABORT_GRACE": "0.3"}
    platform.broker()
    platform.worker()
    before = set(platform.pool())
    drawing = render(ann, seconds=60, limits={"run_limit": 3})
    deaf = cook(ann, seconds=60, stubborn=True, limits={"run_limit": 1})
    until(is_running(deaf), seconds=20)
    deaf_pid = fresh(deaf).slot.pid
    for done in final(drawing, deaf):
        assert (done.status, done.error_code, done.attempt) == (Status.FAILED, "timeout", 1)
    until(lambda: not ffmpegs(), seconds=10)
    until(lambda: deaf_pid not in platform.pool() and len(platform.pool()) == len(before), seconds=20)
    assert len(before & set(platform.pool())) == len(before) - 1  # FFmpeg's limit cost no process
    assert balance(ann) == 1000
    done = final(cook(ann, seconds=0.5), cook(ann, seconds=0.5))
    assert {job.status for job in done} == {Status.SUCCEEDED}


def test_a_leaked_child_ends_with_its_run(platform, ann):
    """So does one that hid: in a session of its own, its parent gone, so that it would be init's."""
    platform.broker()
    worker = platform.worker(slots=1)
    (child,) = platform.pool()
    job = cook(ann, leak_child=True, leak_orphan=True, seconds=1)

    def asleep() -> list[int]:  # not what starts them, which ends at once
        found = [pid for pid in children_of(child) if command(pid).startswith(b"sleep\0")]
        return found if len(found) == 2 else []

    leaked = until(asleep, seconds=20)
    assert final(job)[0].status == Status.SUCCEEDED
    until(lambda: descendants(worker.pid) == {child}, seconds=10)
    assert not any(procfs.started(pid) for pid in leaked)
