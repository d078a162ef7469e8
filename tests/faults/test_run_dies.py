"""F04, F07, F08, F10, F31: a run is frozen and comes back, hangs, loses its heartbeat, FFmpeg or work folder."""

import os
import shutil
import signal

from django.core.files.storage import default_storage

from jobs.models import Status
from tests.faults.rig import M, T, cook, ffmpegs, final, fresh, is_stopped, render, until


def test_frozen_runs_that_come_back_write_nothing(platform, ann):
    """One wakes before it stores its file, one between its last look at the lease and the commit: both are refused."""
    platform.env["JOB_HEARTBEAT_SECONDS"] = "60"  # none: it might be frozen while it has SQLite's write lock
    platform.broker()
    platform.worker(slots=3, faults="run.done=stop;publish.before_commit=stop")
    platform.beat()
    job = cook(ann, max_attempts=5)
    (done,) = final(job, seconds=2 * (T + M) + 40)
    frozen = [pid for pid in platform.pool() if is_stopped(pid)]
    assert (done.status, done.attempt, len(frozen)) == (Status.SUCCEEDED, 3, 2)
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    until(lambda: platform.log("worker").count("lost its lease; its output is discarded") == 2, seconds=20)
    assert fresh(job).finished_at == done.finished_at
    assert [output.attempt for output in done.outputs.all()] == [3]
    assert default_storage.listdir(f"jobs/{job.pk}") == (["3"], [])
    assert set(platform.pool()) >= set(frozen)  # they were not killed, and work on


def test_frozen_inside_the_commit_then_killed(platform, ann):
    """On SQLite it holds the write lock meanwhile; its half step is undone, another attempt does the job."""
    platform.broker()
    platform.worker(slots=1, faults="settle.before_commit=stop")
    platform.beat()
    job = cook(ann)
    until(lambda: platform.passed("settle.before_commit") and is_stopped(*platform.pool()), seconds=20)
    assert fresh(job).status == Status.RUNNING
    os.kill(*platform.pool(), signal.SIGKILL)
    (done,) = final(job, seconds=T + M + 40)
    assert (done.status, done.attempt, done.outputs.get().attempt) == (Status.SUCCEEDED, 2, 2)


def test_a_run_without_its_heartbeat_ends_itself(platform, ann):
    """It never looks at its lease either: its thread says so and it is interrupted, before any watchman comes."""
    platform.broker()
    platform.worker(slots=1, faults="heartbeat.loop=raise", JOB_ABORT_GRACE="5")
    job = cook(ann, seconds=60, stall=True, max_attempts=1)
    (done,) = final(job)
    assert (done.error_code, done.error_message) == ("internal_error", "The attempt's heartbeat failed.")
    assert final(cook(ann))[0].status == Status.SUCCEEDED  # and the same child beats for the next


def test_what_hangs_is_stalled_and_a_killed_ffmpeg_is_tried_again(platform, ann):
    platform.env["FFMPEG"] = platform.slow_ffmpeg()
    platform.up()
    sleeper = cook(ann, seconds=60, stall=True, max_attempts=1, limits={"stall_limit": 1})
    hanging = render(ann, seconds=60, max_attempts=1, limits={"stall_limit": 4})
    (frozen,) = until(ffmpegs, seconds=30)
    until(lambda: fresh(hanging).progress > 0, seconds=30)
    os.kill(frozen, signal.SIGSTOP)
    for done in final(sleeper, hanging):
        assert (done.status, done.error_code) == (Status.FAILED, "stalled")
    until(lambda: not ffmpegs(), seconds=10)

    shot = render(ann, seconds=2)
    (victim,) = until(ffmpegs, seconds=30)
    os.kill(victim, signal.SIGKILL)
    (done,) = final(shot, seconds=40)
    assert (done.status, done.attempt, done.failures) == (Status.SUCCEEDED, 2, 1)
    assert done.events.get(status=Status.RETRY).code == "ffmpeg_error"


def test_a_work_folder_that_is_deleted_under_the_run_costs_one_attempt(platform, ann):
    platform.env["FFMPEG"] = platform.slow_ffmpeg()
    platform.up()
    job = render(ann, seconds=4, max_attempts=2)
    (drawing,) = until(ffmpegs, seconds=30)
    shutil.rmtree(shutil.move(os.readlink(f"/proc/{drawing}/cwd"), platform.folder / "gone"))  # at one stroke
    (done,) = final(job, seconds=60)
    assert (done.status, done.attempt, done.outputs.get().attempt) == (Status.SUCCEEDED, 2, 2)
