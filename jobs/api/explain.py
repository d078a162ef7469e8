"""What happened in a job: the explanation in words, and the log of its runs."""

import re
from dataclasses import asdict

from drf_spectacular.utils import OpenApiParameter, OpenApiTypes, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from .. import joblog
from ..explain import explain
from ..models import LIVE
from . import objects
from .base import refuse_unknown_query
from .jobs import JobView
from .permissions import sees_all
from .polls import POLL_SECONDS


class JobExplain(JobView):
    """Why a job waits, failed, or costs what it costs."""

    @extend_schema(operation_id="jobs_explain", responses=objects.ExplanationObject)
    def get(self, request, job_id):
        """How the job stands, what happened and what was booked, in words; operators read names, owners do not."""
        return Response(asdict(explain(self.job(job_id), for_operator=sees_all(request))))


class JobLogs(JobView):
    """What a job's runs said of their work."""

    @extend_schema(
        operation_id="jobs_logs",
        responses=objects.LogObject,
        parameters=[OpenApiParameter("after", OpenApiTypes.INT64, description="Only lines with a higher id.")],
    )
    def get(self, request, job_id):
        """Up to 500 lines, oldest first; ask again with the `after` of the answer to follow a running job."""
        refuse_unknown_query(request, {"after"})
        after = request.query_params.get("after", "0")
        if not re.fullmatch(r"[0-9]{1,18}", after):
            raise serializers.ValidationError({"after": ["Must be a whole number, from an earlier answer."]})
        job = self.job(job_id)
        lines = joblog.read(job, after=int(after))
        told = [{"id": line.pk, "attempt": line.attempt, "at": line.at, "text": line.text} for line in lines]
        headers = {"Retry-After": POLL_SECONDS} if job.status in LIVE else None
        return Response({"lines": told, "after": lines[-1].pk if lines else int(after)}, headers=headers)
