"""The ingestion queue's API (`/api/ingest`): enqueue once per input, list, detail, cancel and retry, stats.

For the admin key of its document (`X-Admin-Key`), which sees every ingestion job.
"""

import hashlib
import json
from typing import Any

from django.db.models import Count, QuerySet
from rest_framework import serializers
from rest_framework.response import Response

from ... import lifecycle, queries
from ...errors import ErrorCode, Refused
from ...models import Job, Status
from ..authentication import AdminKeyAuthentication, KeyAuthentication
from ..base import KeysetPagination, StrictSerializer, in_words, url
from ..jobs import sell
from ..permissions import IsAdmin
from . import DialectView

ATTEMPTS = 5  # as its document has it
COUNTED = [Status.QUEUED, Status.RUNNING, Status.SUCCEEDED, Status.FAILED, Status.RETRY, Status.CANCELED]
OURS = {"priority", "max_attempts", "idempotency_key"}


class Enqueue(serializers.Serializer):
    """What is not the video's source; the rest are INGEST's params."""

    priority = serializers.IntegerField(min_value=-10, max_value=10, default=0)
    max_attempts = serializers.IntegerField(min_value=1, max_value=10, default=ATTEMPTS)
    idempotency_key = serializers.CharField(max_length=255, required=False)


class Action(StrictSerializer):
    action = serializers.ChoiceField(["cancel", "retry"])


def represent(request, job: Job) -> dict[str, Any]:
    """A job in the queue's words, which are those of the SQL view `ingestion_jobs`."""
    done = job.status == Status.SUCCEEDED
    outputs = {file.name: url(request, "job-output", job.pk, file.name) for file in job.outputs.all()} if done else {}
    locked_by = f"{job.slot.host}-{job.slot.pid}" if job.slot_id and job.slot else None
    return {
        "id": job.pk,
        "status": job.status,
        "priority": job.priority,
        "attempts": job.failures + (job.status in (Status.RUNNING, Status.SUCCEEDED)),
        "max_attempts": job.max_attempts,
        "locked_at": job.started_at,
        "locked_by": locked_by,
        "run_after": job.run_after,
        "processing_started_at": job.started_at,
        "processing_completed_at": job.finished_at if job.started_at else None,
        "completed_at": job.finished_at,
        "last_heartbeat_at": job.heartbeat_at,
        "stage": job.stage,
        "progress": job.progress,
        "input": job.params,
        "output": {"ad_id": str(job.pk), "files": outputs} if done else None,
        "last_error": job.error_message or None,
        "error_code": "HEARTBEAT_TIMEOUT" if job.stage == "released_stale" else job.error_code or None,
        "created_at": job.created_at,
    }


class IngestView(DialectView):
    authentication_classes = [AdminKeyAuthentication, KeyAuthentication]
    permission_classes = [IsAdmin]

    def get_queryset(self) -> QuerySet[Job]:
        return queries.with_outputs(Job.objects.filter(kind="INGEST")).select_related("slot")


class IngestEnqueue(IngestView):
    """Queue a video. The same input again answers with the same job."""

    def post(self, request):
        own = Enqueue(data={name: value for name, value in request.data.items() if name in OURS})
        own.is_valid(raise_exception=True)
        params = {name: value for name, value in request.data.items() if name not in OURS}
        body = json.dumps(params, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(body.encode()).hexdigest()
        with in_words(priority="priority"):
            job, created = sell(
                request,
                "INGEST",
                params,
                key=own.validated_data.get("idempotency_key") or f"ingest:{digest}",
                body_hash=digest,
                max_attempts=own.validated_data["max_attempts"],
                priority=own.validated_data["priority"],
            )
        answer = {"job_id": job.pk, "status": job.status, "already_existed": not created}
        return Response(answer, status=201 if created else 200)


class IngestJobs(IngestView):
    """The queue, newest first; `status`, `limit`, and `stats=true` for the counts beside it."""

    def get(self, request):
        jobs = self.get_queryset()
        if status := request.query_params.get("status"):
            if status not in Status.values:
                detail = f"Must be one of {', '.join(Status.values)}."
                raise Refused(ErrorCode.invalid_request, detail, fields=[("status", "invalid_choice", detail)])
            jobs = jobs.filter(status=status)
        found = KeysetPagination().paginate_queryset(jobs, request)
        answer: dict[str, Any] = {"jobs": [represent(request, job) for job in found]}
        if request.query_params.get("stats") == "true":
            answer["stats"] = counts()
        return Response(answer)


class IngestJob(IngestView):
    """One job; cancel it or retry it."""

    def get(self, request, job_id):
        return Response(represent(request, self.job(job_id)))

    def post(self, request, job_id):
        wanted = Action(data=request.data)
        wanted.is_valid(raise_exception=True)
        job = self.job(job_id, to_change=True)
        if wanted.validated_data["action"] == "cancel":
            lifecycle.cancel(job.pk, by=self.by)
            message = "Job cancelled successfully"
        else:
            lifecycle.retry(job.pk, by=self.by)
            message = "Job queued for retry"
        return Response({"success": True, "message": message, "job": represent(request, self.job(job_id))})


class IngestStats(IngestView):
    """How the queue does."""

    def get(self, request):
        stats = counts()
        by_status = stats["by_status"]
        failed, pending = by_status["FAILED"], by_status["QUEUED"] + by_status["RETRY"]
        silent = queries.silent(Job.objects.filter(kind="INGEST")).exists()
        return Response(
            {
                "stats": stats,
                "health": "unhealthy" if silent else "degraded" if failed else "healthy",
                "summary": {
                    "running": by_status["RUNNING"],
                    "pending": pending,
                    "failed": failed,
                    "has_dead_letter": failed > 0,
                },
            }
        )


def counts() -> dict[str, Any]:
    """`by_status` and `total` of the ingestion jobs."""
    found = dict(Job.objects.filter(kind="INGEST").order_by().values_list("status").annotate(Count("pk")))
    by_status = {status.value: found.get(status, 0) for status in COUNTED}
    return {"by_status": by_status, "total": sum(by_status.values())}
