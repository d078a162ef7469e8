"""The job as everybody sees it: one shape in every answer."""

from collections.abc import Sequence
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from .. import queries
from ..errors import ErrorCode
from ..models import LIVE, Job, Status
from .base import url
from .errors import docs_url

SENTENCES = {
    Status.QUEUED: "Waiting for a worker.",
    Status.RUNNING: "Running.",
    Status.RETRY: "Waiting to be tried again.",
    Status.SUCCEEDED: "Done.",
}


class OutputObject(serializers.Serializer):
    name = serializers.CharField()
    url = serializers.URLField()
    bytes = serializers.IntegerField()
    sha256 = serializers.CharField()
    content_type = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True)


class ErrorObject(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()
    retryable = serializers.BooleanField()
    refunded = serializers.BooleanField()
    docs = serializers.URLField()


class CostObject(serializers.Serializer):
    estimate = serializers.IntegerField()
    charged = serializers.IntegerField()
    refunded = serializers.IntegerField()


class UrlsObject(serializers.Serializer):
    self = serializers.URLField()
    cancel = serializers.URLField()
    events = serializers.URLField()
    logs = serializers.URLField()


class StageObject(serializers.Serializer):
    name = serializers.CharField()
    seconds = serializers.FloatField()


class AttemptObject(serializers.Serializer):
    attempt = serializers.IntegerField()
    round = serializers.IntegerField()
    status = serializers.ChoiceField(Status.choices)
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    code = serializers.CharField(allow_blank=True)
    message = serializers.CharField(allow_blank=True)
    stages = StageObject(many=True, help_text="What each stage took, in order, once the attempt has ended.")


class JobObject(serializers.Serializer):
    """A job. Costs are whole tokens as the ledger has them, over all rounds; `progress` goes from 0 to 1."""

    id = serializers.UUIDField()
    kind = serializers.CharField()
    status = serializers.ChoiceField(Status.choices)
    status_hint = serializers.CharField(allow_null=True, help_text="`warming_gpu` while a GPU starts.")
    stage = serializers.CharField(allow_blank=True)
    progress = serializers.FloatField(min_value=0, max_value=1)
    message = serializers.CharField()
    queue_position = serializers.IntegerField(allow_null=True, help_text="1 is next; only in the detail, to 1,000.")
    eta_seconds = serializers.FloatField(
        allow_null=True, help_text="Until it has probably ended, by what jobs like it took; only in the detail."
    )
    attempt = serializers.IntegerField()
    max_attempts = serializers.IntegerField()
    params = serializers.DictField()
    outputs = OutputObject(many=True)
    error = ErrorObject(allow_null=True)
    cost = CostObject()
    metadata = serializers.DictField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    deadline_at = serializers.DateTimeField(
        allow_null=True,
        help_text="When the clock ends it at the latest: its deadline, or its running attempt's time limit.",
    )
    urls = UrlsObject()


class JobDetailObject(JobObject):
    attempts = AttemptObject(many=True)


class LineObject(serializers.Serializer):
    at = serializers.DateTimeField()
    title = serializers.CharField()
    detail = serializers.CharField(allow_blank=True)
    by = serializers.CharField(allow_blank=True)
    tokens = serializers.IntegerField(help_text="What the balance moved by.")
    code = serializers.CharField(allow_blank=True)


class LogLineObject(serializers.Serializer):
    id = serializers.IntegerField()
    attempt = serializers.IntegerField()
    at = serializers.DateTimeField()
    text = serializers.CharField()


class LogObject(serializers.Serializer):
    """`after` is what to ask for next; the log is whole once the job has ended and `lines` is empty."""

    lines = LogLineObject(many=True)
    after = serializers.IntegerField()


class ExplanationObject(serializers.Serializer):
    now = serializers.ListField(child=serializers.CharField())
    timeline = LineObject(many=True)
    money = LineObject(many=True)


def many(request: Request | None, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """The jobs as JSON-ready objects; their outputs must have been read along."""
    costs = queries.costs(jobs)
    return [_job(request, job, costs[job.pk]) for job in jobs]


def one(request: Request, job: Job) -> dict[str, Any]:
    """One job with its place in the queue."""
    cost = queries.costs([job])[job.pk]
    return _job(request, job, cost, position=queries.position(job))


def detail(request: Request, job: Job) -> dict[str, Any]:
    """One job with its place in the queue, how long it will probably take, and its attempts."""
    told = one(request, job)
    left = queries.eta(job, told["queue_position"]) if job.status in LIVE else None
    return {**told, "eta_seconds": left and round(left[0], 1), "attempts": queries.attempts(job)}


def _job(request: Request | None, job: Job, cost: queries.Cost, *, position: int | None = None) -> dict[str, Any]:
    return {
        "id": job.pk,
        "kind": job.kind,
        "status": job.status,
        "status_hint": queries.status_hint(job),
        "stage": job.stage,
        "progress": job.progress,
        "message": job.error_message or SENTENCES.get(job.status, ""),
        "queue_position": position,
        "eta_seconds": None,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "params": job.params,
        "outputs": [_output(request, job, file) for file in job.outputs.all()]
        if job.status == Status.SUCCEEDED
        else [],
        "error": _error(job, cost) if job.error_code else None,
        "cost": {"estimate": job.price, "charged": cost.charged, "refunded": cost.refunded},
        "metadata": job.metadata,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "deadline_at": queries.deadline(job),
        "urls": {
            "self": url(request, "job", job.pk),
            "cancel": url(request, "job-cancel", job.pk),
            "events": url(request, "job-events", job.pk),
            "logs": url(request, "job-logs", job.pk),
        },
    }


def _output(request: Request | None, job: Job, file) -> dict[str, Any]:
    return {
        "name": file.name,
        "url": url(request, "job-output", job.pk, file.name),
        "bytes": file.bytes,
        "sha256": file.sha256,
        "content_type": file.content_type,
        "expires_at": None,
    }


def _error(job: Job, cost: queries.Cost) -> dict[str, Any]:
    code = ErrorCode.__members__.get(job.error_code)
    return {
        "code": job.error_code,
        "message": job.error_message or (code.row.sentence if code else ""),
        "retryable": bool(code and code.row.retryable),
        "refunded": cost.returned,
        "docs": docs_url(job.error_code),
    }
