"""Submit, watch, cancel, retry and delete jobs. What is refused becomes JSON in `api.errors`, nowhere else."""

import hashlib
import json
from datetime import datetime, timedelta

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from .. import inputs, intake, kinds, lifecycle, policies, queries
from ..errors import ErrorCode, Refused
from ..models import LIVE, CancelRefund, Job, Status
from . import objects
from .base import KeysetPagination, StrictSerializer, View, idempotency_key, refuse_unknown_query, url
from .permissions import may_act_on, may_operate, sees_all

POLL_SECONDS = "1"  # how soon a live job is worth another look
METADATA_BYTES = 4096
TICK = timedelta(microseconds=1)
IDEMPOTENCY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="The same key and body make one job, however often sent.",
)


class SubmitJob(StrictSerializer):
    """`params` are those of the kind; `metadata` is the caller's own and comes back unread."""

    kind = serializers.CharField(max_length=20)
    params = serializers.DictField(default=dict)
    priority = serializers.IntegerField(min_value=-10, max_value=10, default=0, help_text="Operators only.")
    metadata = serializers.DictField(default=dict)
    max_attempts = serializers.IntegerField(min_value=1, max_value=10, required=False)

    def validate_metadata(self, value: dict) -> dict:
        if len(json.dumps(value)) > METADATA_BYTES:
            raise serializers.ValidationError(f"May have {METADATA_BYTES} bytes as JSON.", "too_large")
        return value


class EstimateJob(StrictSerializer):
    kind = serializers.CharField(max_length=20)
    params = serializers.DictField(default=dict)


class Estimate(serializers.Serializer):
    kind = serializers.CharField()
    params = serializers.DictField()
    cost = serializers.DictField(child=serializers.IntegerField())
    cancel_refund = serializers.ChoiceField(
        CancelRefund.choices, help_text="What comes back if it is cancelled while it runs; before that, everything."
    )


class JobFilter(filters.FilterSet):
    """`status` may come several times; times are ISO 8601."""

    status = filters.MultipleChoiceFilter(choices=Status.choices)
    kind = filters.CharFilter(max_length=20)
    created_after = filters.IsoDateTimeFilter(method="since", help_text="Inclusive.")
    created_before = filters.IsoDateTimeFilter(method="until", help_text="Exclusive.")

    class Meta:
        model = Job
        fields = ["status", "kind", "created_after", "created_before"]

    # SQLite compares times as text, and its own clock writes fewer digits: an equal time is only found a tick beside.
    def since(self, jobs: QuerySet[Job], name: str, value: datetime) -> QuerySet[Job]:
        return jobs.filter(created_at__gt=value - TICK)

    def until(self, jobs: QuerySet[Job], name: str, value: datetime) -> QuerySet[Job]:
        return jobs.filter(created_at__lte=value - TICK)


def sell(request, kind_name: str, params: dict, *, key: str | None = None, priority: int = 0, **options):
    """Check and sell a job to the caller: (job, whether it is new). `options` are those of `lifecycle.submit`.

    Refused or ValidationError, with nothing written, for whatever is wrong with it.
    """
    kind = intake.kind_named(kind_name)
    params = intake.checked_params(kind, params)
    reserved = [f"params.{name}" for name in sorted(kind.for_operators & params.keys())]
    if priority:
        reserved.append("priority")
    if reserved and not may_operate(request):
        fields = [(name, "not_allowed", "Is for operators only.") for name in reserved]
        raise Refused(ErrorCode.invalid_request, f"Only operators may set {reserved[0]}.", fields=fields)
    intake.price_of(kind, params)
    if not (key and queries.knows_key(request.user.pk, key)):
        intake.check_room(request.user.pk, kind)
    return lifecycle.submit(request.user.pk, kind.name, params, key=key, priority=priority, **options)


class JobView(View):
    """What all views of jobs start from: the jobs that the caller may see; any other is a 404."""

    def get_queryset(self) -> QuerySet[Job]:
        return queries.jobs_for(self.request.user, everybody=sees_all(self.request))

    def job(self, job_id, *, to_change: bool = False) -> Job:
        """The job of that id. Refused with not_found, or permission_denied if it may be seen but not acted on."""
        job = self.get_queryset().filter(pk=job_id).first()
        if job is None:
            raise Refused(ErrorCode.not_found)
        if to_change and not may_act_on(self.request, job):
            raise Refused(ErrorCode.permission_denied)
        return job

    @property
    def by(self) -> str:
        return f"user:{self.request.user.pk}"


class Jobs(JobView):
    """The caller's jobs, newest first (viewers and above: everybody's); submit one."""

    filterset_class = JobFilter
    pagination_class = KeysetPagination

    @extend_schema(operation_id="jobs_list", responses=objects.JobObject(many=True), filters=True)
    def get(self, request):
        """List jobs."""
        refuse_unknown_query(request, {"limit", "cursor", *JobFilter.base_filters})
        chosen = JobFilter(request.query_params, self.get_queryset(), request=request)
        if not chosen.is_valid():
            raise serializers.ValidationError(_plain(chosen.errors))
        pages = KeysetPagination()
        jobs = pages.paginate_queryset(queries.with_outputs(chosen.qs), request)
        return pages.get_paginated_response(objects.many(request, jobs))

    @extend_schema(
        operation_id="jobs_submit",
        request=SubmitJob,
        responses={202: objects.JobObject, 200: objects.JobObject},
        parameters=[IDEMPOTENCY],
    )
    def post(self, request):
        """Submit a job: its price is charged now and comes back if it fails or is cancelled."""
        key = idempotency_key(request)
        wanted = SubmitJob(data=request.data)
        wanted.is_valid(raise_exception=True)
        fields = wanted.validated_data
        body = json.dumps(request.data, sort_keys=True, separators=(",", ":"))
        job, created = sell(
            request,
            fields["kind"],
            fields["params"],
            key=key,
            body_hash=hashlib.sha256(body.encode()).hexdigest(),
            priority=fields["priority"],
            max_attempts=fields.get("max_attempts"),
            metadata=fields["metadata"],
        )
        headers = {"Location": url(request, "job", job.pk), "Retry-After": POLL_SECONDS}
        if not created:
            headers["Idempotent-Replayed"] = "true"
        return Response(objects.one(request, self.job(job.pk)), status=202 if created else 200, headers=headers)


def _plain(errors) -> dict[str, list]:
    """A Django form's errors as DRF's detail."""
    return {
        name: [serializers.ErrorDetail(item["message"], item["code"] or "invalid") for item in found]
        for name, found in errors.get_json_data().items()
    }


class JobEstimate(View):
    """What a job would cost."""

    @extend_schema(operation_id="jobs_estimate", request=EstimateJob, responses=Estimate)
    def post(self, request):
        """Price a job with the function that would charge it; nothing is written."""
        wanted = EstimateJob(data=request.data)
        wanted.is_valid(raise_exception=True)
        kind = intake.kind_named(wanted.validated_data["kind"])
        params = intake.checked_params(kind, wanted.validated_data["params"])
        found = inputs.resolve(request.user.pk, kind, params)
        tokens = intake.price_of(kind, params, inputs.sizes(found))
        rule = policies.rule(kind.name, kind.tier(params))
        told = {"kind": kind.name, "params": params, "cost": {"estimate": tokens}, "cancel_refund": rule.cancel_refund}
        return Response(told)


class JobDetail(JobView):
    """One job."""

    @extend_schema(operation_id="jobs_retrieve", responses=objects.JobDetailObject)
    def get(self, request, job_id):
        """Everything about one job, its attempts included."""
        job = self.job(job_id)
        headers = {"Retry-After": POLL_SECONDS} if job.status in LIVE else None
        return Response(objects.detail(request, job), headers=headers)

    @extend_schema(operation_id="jobs_delete", responses={204: None})
    def delete(self, request, job_id):
        """Remove a job and its outputs; a live one is cancelled first. Its ledger lines stay."""
        lifecycle.delete(self.job(job_id, to_change=True).pk, by=self.by)
        return Response(status=204)


class JobCancel(JobView):
    """Cancel one job."""

    @extend_schema(operation_id="jobs_cancel", request=None, responses=objects.JobObject)
    def post(self, request, job_id):
        """End a live job at once and give its tokens back. A second cancel answers the same; a final job is a 409."""
        job = lifecycle.cancel(self.job(job_id, to_change=True).pk, by=self.by)
        return Response(objects.one(request, job))


class JobRetry(JobView):
    """Retry one job."""

    @extend_schema(operation_id="jobs_retry", request=None, responses={202: objects.JobObject})
    def post(self, request, job_id):
        """Charge a FAILED job again at the price it was sold at and queue it for another round."""
        job = self.job(job_id, to_change=True)
        if job.kind in kinds.names():
            intake.check_room(job.owner_id, kinds.get(job.kind))
        job = lifecycle.retry(job.pk, by=self.by)
        return Response(
            objects.one(request, job),
            202,
            headers={"Location": url(request, "job", job.pk), "Retry-After": POLL_SECONDS},
        )
