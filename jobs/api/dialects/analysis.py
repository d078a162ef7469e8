"""The analysis worker's API: upload a CSV, watch it by `jobId`, cancel it. camelCase, and its own status words."""

import uuid
from typing import Any

from django.conf import settings
from rest_framework.response import Response

from ... import lifecycle, queries
from ...errors import ErrorCode, Refused
from ...models import FINAL, LIVE, Job, Status
from ...models.job import is_uuid
from .. import polls
from ..base import url
from ..jobs import sell
from ..uploads import UploadParser, brought
from . import DialectView

ATTEMPTS = 1  # its document promises `failed`, not another try
WORDS = {
    Status.QUEUED: "submitted",
    Status.RETRY: "submitted",
    Status.RUNNING: "processing",
    Status.SUCCEEDED: "completed",
    Status.FAILED: "failed",
    Status.CANCELED: "cancelled",
}
ERRORS = {"timeout": "timeout", "storage_error": "blob_upload_failed", "worker_shutdown": "worker_shutdown"}


def error_word(job: Job) -> str:
    """A failed job's code in the document's four words."""
    return ERRORS.get(job.error_code, "processing_error")


def represent(request, job: Job) -> dict[str, Any]:
    """A job in the document's words. A failed one's `resultUrl` is its error.json."""
    result = None
    if job.status == Status.SUCCEEDED:
        result = url(request, "job-output", job.pk, "result.json")
    elif job.status == Status.FAILED:
        result = url(request, "analysis-error", job.pk)
    return {**summary(job), "resultUrl": result}


def summary(job: Job) -> dict[str, Any]:
    """What `represent` says but for the address."""
    failed = job.status == Status.FAILED
    return {
        "jobId": job.pk,
        "status": WORDS[job.status],
        "progress": job.progress,
        "stage": job.stage,
        "error": error_word(job) if failed else None,
        "errorMessage": job.error_message if failed else None,
        "createdAt": job.created_at,
        "updatedAt": queries.updated_at(job),
        "cancelledAt": job.finished_at if job.status == Status.CANCELED else None,
    }


class AnalysisView(DialectView):
    def get_queryset(self):
        return super().get_queryset().filter(kind="ANALYZE")


class AnalysisUpload(AnalysisView):
    """Bring a CSV as the form's `file`: it is kept, charged and queued in one call."""

    parser_classes = [UploadParser]

    def post(self, request):
        upload = brought(request)
        job, _ = sell(request, "ANALYZE", {"file": f"upload:{upload.pk}"}, max_attempts=ATTEMPTS)
        return Response(represent(request, job), status=202, headers={"Retry-After": polls.POLL_SECONDS})


class AnalysisStatus(AnalysisView):
    """How a job stands; `Retry-After` while it is worth asking again, and how long a client should go on asking."""

    def get(self, request, job_id):
        job = self.job(job_id)
        headers = {"X-Client-Max-Wait-Seconds": f"{settings.JOBSITE['CLIENT_MAX_WAIT']:g}"}
        if job.status in LIVE:
            headers["Retry-After"] = polls.pause(job)
        return Response(represent(request, job), headers=headers)


class AnalysisError(AnalysisView):
    """A failed job's error.json, made from its row. 404 unless it failed."""

    def get(self, request, job_id):
        job = self.job(job_id)
        if job.status != Status.FAILED:
            raise Refused(ErrorCode.not_found, f"The job is {WORDS[job.status]}.")
        return Response(
            {
                "jobId": job.pk,
                "status": "failed",
                "error": error_word(job),
                "message": job.error_message,
                "timestamp": job.finished_at,
            }
        )


class AnalysisCancel(AnalysisView):
    """Cancel by `?jobId=` or a JSON body: one of the document's three answers."""

    def post(self, request):
        given = request.query_params.get("jobId") or request.data.get("jobId")
        if not isinstance(given, str) or not is_uuid(given):
            detail = 'Send ?jobId=<id> or {"jobId": "<id>"}.'
            raise Refused(ErrorCode.invalid_request, detail, fields=[("jobId", "invalid", detail)])
        job = self.job(uuid.UUID(given), to_change=True)
        if job.status not in FINAL:
            try:
                job = lifecycle.cancel(job.pk, by=self.by)
                return Response({"jobId": job.pk, "status": "cancelled", "cancelledAt": job.finished_at})
            except Refused as refused:  # it ended meanwhile
                if refused.code is not ErrorCode.job_is_final:
                    raise
                job = self.job(job.pk)
        word = WORDS[job.status]
        if job.status == Status.CANCELED:
            message = "Job was already cancelled"
            return Response({"jobId": job.pk, "status": word, "message": message, "cancelledAt": job.finished_at})
        refused = {"error": f"Cannot cancel job with status '{word}'", "jobId": job.pk, "status": word}
        return Response(refused, status=400)
