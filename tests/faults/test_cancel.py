"""F42, F09: a cancel at every point of a job's life, and of an FFmpeg that resists."""

import pytest
from django.conf import settings

from jobs import lifecycle
from jobs.errors import ErrorCode, Refused
from jobs.models import Artifact, Job, Status
from tests.faults.rig import balance, cook, ffmpegs, final, fresh, is_running, render, until
from tokens.models import Transaction

POINTS = ["claim.after", "run.starting", "run.done", "publish.stored", "publish.before_commit"]


def canceled(job: Job) -> None:
    """Cancel twice: the same answer, no output, one refund."""
    first, second = lifecycle.cancel(job.pk, by="test"), lifecycle.cancel(job.pk, by="test")
    assert first.status == second.status == Status.CANCELED
    assert first.finished_at == second.finished_at
    assert not Artifact.objects.filter(job=job).exists()
    assert Transaction.objects.filter(kind="REFUND", reverses=job.charge_id).count() == 1


def at_rest(job: Job):
    """Whether no run of the job goes on."""
    return lambda: not list(settings.WORK_ROOT.glob(f"*.{job.pk}.*"))


def test_cancel_at_every_point(platform, ann):
    platform.broker()
    waiting = cook(ann)
    canceled(waiting)
    plan = ";".join(f"{point}=sleep:3" for point in POINTS)
    platform.worker(slots=1, faults=plan, JOB_ABORT_GRACE="30")
    for point in POINTS:
        job = cook(ann)
        until(lambda point=point: platform.passed(point), seconds=20)
        canceled(job)
        until(at_rest(job), seconds=20)
        assert fresh(job).status == Status.CANCELED, point
        assert not artifacts_of(job), point
    cooking = cook(ann, seconds=60)
    until(is_running(cooking), seconds=20)
    canceled(cooking)
    assert balance(ann) == 1000
    finished = cook(ann)
    final(finished)
    with pytest.raises(Refused) as refused:
        lifecycle.cancel(finished.pk, by="test")
    assert refused.value.code is ErrorCode.job_is_final
    assert balance(ann) == 1000 - finished.price


def artifacts_of(job: Job) -> list[str]:
    """Files in the storage under the job's prefix."""
    folder = settings.STORAGE_ROOT / "jobs" / str(job.pk)
    return [str(path) for path in folder.rglob("*") if path.is_file()]


def test_cancel_ends_ffmpeg(platform, ann):
    platform.env["FFMPEG"] = platform.slow_ffmpeg()
    platform.broker()
    platform.worker(slots=1)
    drawing = render(ann, seconds=60)
    until(ffmpegs, seconds=30)
    canceled(drawing)
    until(lambda: not ffmpegs(), seconds=10)
    assert final(cook(ann))[0].status == Status.SUCCEEDED  # the slot is free again


def test_cancel_ends_an_ffmpeg_that_resists(platform, ann):
    """It ignores TERM, INT and HUP, reads no input and floods stderr: no pipe blocks, the slot is free again."""
    flood = "trap '' TERM INT HUP\nwhile :; do printf '%01000000d\\n' 1 >&2; touch flooding; done"
    platform.env["FFMPEG"] = platform.ffmpeg_script(flood)
    platform.broker()
    platform.worker(slots=1)
    drawing = render(ann)
    until(lambda: list(settings.WORK_ROOT.glob("*/flooding")), seconds=30)
    assert ffmpegs()
    canceled(drawing)
    until(lambda: not ffmpegs(), seconds=10)
    assert final(cook(ann))[0].status == Status.SUCCEEDED
