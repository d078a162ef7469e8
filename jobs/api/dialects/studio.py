"""The Studio's API (`/jobs`): RENDER and STITCH, `job_id`, `type`, `output_urls`, hard cancel, delete with a count."""

import uuid
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from ... import lifecycle, queries
from ...errors import ErrorCode, Refused
from ...imports import studio_id, studio_words
from ...models import FINAL, Job
from ..base import KeysetPagination, StrictSerializer, in_words, url
from ..jobs import sell
from . import DialectView

ATTEMPTS = 1  # its document promises FAILED, not another try


class Submission(StrictSerializer):
    type = serializers.CharField(max_length=20)
    params = serializers.DictField(default=dict)


def represent(request: Request, job: Job) -> dict[str, Any]:
    """A job in the Studio's words; its outputs must have been read along."""
    outputs = [url(request, "job-output", job.pk, file.name) for file in job.outputs.all()]
    imported = studio_words(job)
    error = {"code": job.error_code, "message": job.error_message} if job.error_code else None
    return {
        "job_id": imported.get("job_id", str(job.pk)),
        "type": job.kind,
        "status": job.status,
        "status_hint": queries.status_hint(job),
        "progress": job.progress,
        "stage": job.stage,
        "params": job.params,
        "output_urls": outputs or imported.get("output_urls", []),
        "error": error,
        "created_at": job.created_at,
        "updated_at": queries.updated_at(job),
        "heartbeat_at": job.heartbeat_at,
    }


class StudioJobs(DialectView):
    """Submit a job; list jobs, newest first."""

    def get(self, request):
        pages = KeysetPagination()
        jobs = pages.paginate_queryset(queries.with_outputs(self.get_queryset()), request)
        return Response([represent(request, job) for job in jobs])

    def post(self, request):
        wanted = Submission(data=request.data)
        wanted.is_valid(raise_exception=True)
        with in_words(kind="type"):
            job, _ = sell(
                request, wanted.validated_data["type"], wanted.validated_data["params"], max_attempts=ATTEMPTS
            )
        return Response(represent(request, self.job(job.pk)), status=201)


class StudioJobView(DialectView):
    def job(self, job_id, *, to_change: bool = False) -> Job:
        """The job of that id, which may be one that the Studio gave."""
        return super().job(job_id if isinstance(job_id, uuid.UUID) else studio_id(job_id), to_change=to_change)


class StudioJob(StudioJobView):
    """One job; delete it with its files."""

    def get(self, request, job_id):
        return Response(represent(request, self.job(job_id)))

    def delete(self, request, job_id):
        files = lifecycle.delete(self.job(job_id, to_change=True).pk, by=self.by)
        return Response({"job_id": job_id, "deleted": True, "artifacts_cleaned": files})


class StudioCancel(StudioJobView):
    """Cancel a job: CANCELED at once, however often asked; a job that has ended stays as it is."""

    def post(self, request, job_id):
        job = self.job(job_id, to_change=True)
        if job.status not in FINAL:
            try:
                job = lifecycle.cancel(job.pk, by=self.by)
            except Refused as refused:  # it ended meanwhile
                if refused.code is not ErrorCode.job_is_final:
                    raise
                job = self.job(job.pk)
        return Response(represent(request, job))
