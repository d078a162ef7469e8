"""Submit, watch, cancel, retry and delete jobs. What is refused becomes JSON in `api.errors`, nowhere else."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from .. import intake, kinds, lifecycle, queries
from ..errors import ErrorCode, Refused
from ..models import CancelRefund, Job, Status
from ..search import HELP, LONGEST, search_in
from . import objects, polls, waiting
from .base import KeysetPagination, StrictSerializer, View, idempotency_key, refuse_unknown_query, url
from .permissions import may_act_on, may_operate, sees_all
from .polls import POLL_SECONDS

METADATA_BYTES = 4096
TICK = timedelta(microseconds=1)
FIRST, LAST = datetime(2, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)  # in reach of any zone, and of a tick
IDEMPOTENCY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="The same key and body make one job, however often sent.",
)

KNOWN = OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER, description="The ETag of an earlier answer.")


class WithParams(StrictSerializer):
    """A kind and its `params`: what is wrong with these is named together with all else."""

    def to_internal_value(self, data):
        try:
            return super().to_internal_value(data)
        except serializers.ValidationError as error:
            raise serializers.ValidationError(error.detail | _wrong_params(data)) from error


def _wrong_params(data) -> dict:
    """The errors of a kind's params as DRF's detail; none where there is no such kind, or no params to look at."""
    if not isinstance(data, dict) or not isinstance(data.get("params", {}), dict):
        return {}
    if data.get("kind") not in kinds.names():
        return {}
    try:
        intake.checked_params(kinds.get(data["kind"]), data.get("params", {}))
    except serializers.ValidationError as error:
        return error.detail
    return {}


class SubmitJob(WithParams):
    """`params` are those of the kind; `metadata` is the caller's own and comes back unread."""

    kind = serializers.CharField(max_length=20)
    params = serializers.DictField(default=dict)
    priority = serializers.IntegerField(min_value=-10, max_value=10, default=0, help_text="Operators only.")
    metadata = serializers.DictField(default=dict)
    max_attempts = serializers.IntegerField(min_value=1, max_value=10, required=False)
    deadline_seconds = serializers.IntegerField(
        min_value=intake.DEADLINE_LEAST,
        max_value=intake.DEADLINE_MOST,
        required=False,
        help_text="It is cancelled if it has not ended by then.",
    )

    def validate_metadata(self, value: dict) -> dict:
        if len(json.dumps(value)) > METADATA_BYTES:
            raise serializers.ValidationError(f"May have {METADATA_BYTES} bytes as JSON.", "too_large")
        return value


class EstimateJob(WithParams):
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
    search = filters.CharFilter(method="found", max_length=LONGEST, help_text=f"One line of words: {HELP}.")

    class Meta:
        model = Job
        fields = ["status", "kind", "created_after", "created_before", "search"]

    # SQLite compares times as text, and its own clock writes fewer digits: an equal time is only found a tick beside.
    def since(self, jobs: QuerySet[Job], name: str, value: datetime) -> QuerySet[Job]:
        return jobs.filter(created_at__gt=_just_before(value))

    def until(self, jobs: QuerySet[Job], name: str, value: datetime) -> QuerySet[Job]:
        return jobs.filter(created_at__lte=_just_before(value))

    def found(self, jobs: QuerySet[Job], name: str, value: str) -> QuerySet[Job]:
        return search_in(jobs, value, among=self.queryset)


def _just_before(moment: datetime) -> datetime:
    """A tick before; for what languages have as their first and last moments (Go's zero time), as far as one goes."""
    return min(max(moment, FIRST), LAST) - TICK


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
    intake.check_room(request.user.pk, kind, key=key)
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
    # What the schema asks for the parameters of the list; `get` filters by itself.
    filter_backends = [filters.DjangoFilterBackend]
    queryset = Job.objects.none()
    pagination_class = KeysetPagination

    @extend_schema(operation_id="jobs_list", responses=objects.JobObject(many=True), filters=True)
    def get(self, request):
        """List jobs."""
        refuse_unknown_query(request, {"limit", "cursor", *JobFilter.base_filters})
        if empty := [name for name in ("created_after", "created_before") if request.query_params.get(name) == ""]:
            raise serializers.ValidationError({name: ["Must be a time, as in ISO 8601."] for name in empty})
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
        parameters=[IDEMPOTENCY, waiting.PREFER],
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
            deadline_seconds=fields.get("deadline_seconds"),
        )
        headers = {"Location": url(request, "job", job.pk), "Retry-After": POLL_SECONDS}
        if not created:
            headers["Idempotent-Replayed"] = "true"
        response = Response(objects.one(request, self.job(job.pk)), status=202 if created else 200, headers=headers)
        return waiting.held(request, response, job, lambda: objects.one(request, self.job(job.pk)))


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
        tokens, refund = intake.quote(request.user.pk, kind, params)
        told = {"kind": kind.name, "params": params, "cost": {"estimate": tokens}, "cancel_refund": refund}
        return Response(told)


class JobDetail(JobView):
    """One job."""

    @extend_schema(
        operation_id="jobs_retrieve",
        responses={200: objects.JobDetailObject, 304: None},
        parameters=[KNOWN, waiting.PREFER],
    )
    def get(self, request, job_id):
        """Everything about one job, its attempts included. 304 if the caller has it as it is."""
        job = self.job(job_id)
        body = objects.detail(request, job)
        headers = polls.headers(job, body["queue_position"])
        if polls.unchanged(request, headers["ETag"]) and not waiting.wanted(request):
            return Response(status=304, headers=headers)
        response = Response(body, headers=headers)
        return waiting.held(request, response, job, lambda: objects.detail(request, self.job(job_id)))

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

    @extend_schema(
        operation_id="jobs_retry",
        request=None,
        responses={202: objects.JobObject, 200: objects.JobObject},
        parameters=[IDEMPOTENCY],
    )
    def post(self, request, job_id):
        """Charge a FAILED job again at the price it was sold at and queue it for another round."""
        key = idempotency_key(request)
        job = self.job(job_id, to_change=True)
        known = bool(key) and queries.knows_key(request.user.pk, key)
        if job.kind in kinds.names() and not known:
            intake.check_room(job.owner_id, kinds.get(job.kind))
        job = lifecycle.retry(job.pk, by=self.by, key=(request.user.pk, key) if key else None)
        headers = {"Location": url(request, "job", job.pk), "Retry-After": POLL_SECONDS}
        if known:
            headers["Idempotent-Replayed"] = "true"
        return Response(objects.one(request, job), 200 if known else 202, headers=headers)
