"""F42, F09: a cancel at every point of a job's life, and of an FFmpeg that resists."""

import os
import signal
from datetime import timedelta

import pytest
from django.conf import settings
from django.db.models.functions import Now

from jobs.models import Artifact, Job, Status
from tests.clients import ApiClient
from tests.faults.rig import balance, cook, ffmpegs, final, fresh, is_running, is_stopped, render, until
from tokens.models import Transaction

POINTS = ["claim.after", "run.starting", "run.done", "publish.stored", "publish.before_commit"]


@pytest.fixture
def cancel(ann):
    """cancel(job) → the API's answer to Ann's cancel."""
    client = ApiClient(ann)
    return lambda job: client.send(f"/api/jobs/{job.pk}/cancel/")


def canceled(cancel, job: Job) -> None:
    """Cancel twice: the same answer, no output, one refund."""
    first, second = cancel(job), cancel(job)
    assert first.status_code == second.status_code == 200
    assert first.json()["status"] == second.json()["status"] == Status.CANCELED
    assert first.json()["finished_at"] == second.json()["finished_at"]
    assert not Artifact.objects.filter(job=job).exists()
    assert Transaction.objects.filter(kind="REFUND", reverses=job.charge_id).count() == 1


def at_rest(platform, job: Job):
    """Whether the run of a job noticed that it was cancelled, and is over."""
    said = f"Job {job.pk} attempt 1 lost its lease; its output is discarded"
    return lambda: said in platform.log("worker") and not list(settings.WORK_ROOT.glob(f"*.{job.pk}.*"))


def test_cancel_at_every_point(platform, ann, cancel):
    platform.env |= {"JOB_HEARTBEAT_SECONDS": "60", "JOB_HEARTBEAT_TIMEOUT": "600"}
    platform.broker()  # and no beat: its thread might be frozen with the run while it has SQLite's write lock
    waiting = cook(ann)
    canceled(cancel, waiting)
    platform.arm(of=POINTS)
    platform.worker(slots=1, faults=";".join(f"{point}=stop" for point in POINTS))
    (child,) = platform.pool()
    for point in POINTS:
        platform.arm(point, of=POINTS)
        job = cook(ann)
        until(lambda point=point: platform.passed(point) and is_stopped(child), seconds=20)
        canceled(cancel, job)
        os.kill(child, signal.SIGCONT)
        until(at_rest(platform, job), seconds=20)
        assert fresh(job).status == Status.CANCELED, point
        assert not files_of(job), point
    cooking = cook(ann, seconds=60)
    until(is_running(cooking), seconds=20)
    canceled(cancel, cooking)
    assert balance(ann) == 1000
    finished = cook(ann)
    final(finished)
    assert (cancel(finished).status_code, cancel(finished).json()["code"]) == (409, "job_is_final")
    assert balance(ann) == 1000 - finished.price


def test_a_deadline_cancels_what_runs_and_what_waits(platform, ann):
    """Nobody asks for it: Beat's watchman finds both, the run sees that it lost its lease and ends."""
    platform.broker()
    platform.worker(slots=1)
    running = cook(ann, seconds=60)
    until(is_running(running), seconds=20)
    waiting = cook(ann, seconds=60)
    begun = set(map(str, settings.WORK_ROOT.glob(f"*.{running.pk}.*")))
    soon = {"deadline_seconds": 5, "cancel_at": Now() + timedelta(seconds=1)}
    Job.objects.filter(pk__in=[running.pk, waiting.pk]).update(**soon)
    platform.beat()
    for job in final(running, waiting):
        assert (job.status, job.error_code) == (Status.CANCELED, "deadline_passed")
    until(at_rest(platform, running), seconds=20)
    assert begun and fresh(waiting).attempt == 0
    assert balance(ann) == 1000


def test_cancel_inside_the_commit(platform, ann, cancel):
    """The frozen run holds the row (on SQLite: the database) in its last transaction. Either the cancel is told to come
    again and the run, woken, has the last word; or the database ends the frozen session first: the cancel has it."""
    platform.broker()
    platform.worker(slots=1, faults="settle.before_commit=stop")
    job = cook(ann)
    until(lambda: platform.passed("settle.before_commit") and is_stopped(*platform.pool()), seconds=20)
    told = cancel(job).status_code
    assert told in (200, 503)
    os.kill(*platform.pool(), signal.SIGCONT)
    (done,) = final(job)
    if told == 503:
        assert (done.status, balance(ann)) == (Status.SUCCEEDED, 1000 - job.price)
    else:
        assert (done.status, balance(ann)) == (Status.CANCELED, 1000)
    until(lambda: cancel(job).status_code == (409 if told == 503 else 200), seconds=10)


def files_of(job: Job) -> list[str]:
    """Files in the storage under the job's prefix."""
    folder = settings.STORAGE_ROOT / "jobs" / str(job.pk)
    return [str(path) for path in folder.rglob("*") if path.is_file()]


def test_cancel_ends_ffmpeg(platform, ann, cancel):
    platform.env["FFMPEG"] = platform.slow_ffmpeg()
    platform.broker()
    platform.worker(slots=1)
    drawing = render(ann, seconds=60)
    until(ffmpegs, seconds=30)
    canceled(cancel, drawing)
    until(lambda: not ffmpegs(), seconds=10)
    assert final(cook(ann))[0].status == Status.SUCCEEDED  # the slot is free again


def test_cancel_ends_an_ffmpeg_that_resists(platform, ann, cancel):
    """It ignores TERM, INT and HUP, reads no input and floods stderr: no pipe blocks, the slot is free again."""
    flood = "trap '' TERM INT HUP\nwhile :; do printf '%01000000d\\n' 1 >&2; touch flooding; done"
    platform.env["FFMPEG"] = platform.ffmpeg_script(flood)
    platform.broker()
    platform.worker(slots=1)
    drawing = render(ann)
    until(lambda: list(settings.WORK_ROOT.glob("*/flooding")), seconds=30)
    assert ffmpegs()
    canceled(cancel, drawing)
    until(lambda: not ffmpegs(), seconds=10)
    assert final(cook(ann))[0].status == Status.SUCCEEDED
