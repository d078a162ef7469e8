"""Clean up stuck jobs on demand: by an admin, and by an outside scheduler with CRON_SECRET. The documented shapes."""

import hmac

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from .. import cleanup, throttles
from ..errors import ErrorCode, Refused
from ..models import CleanupRun
from .base import StrictSerializer, View, in_words
from .parsers import AnyTypeJSONParser
from .permissions import IsAdmin

MOST_AT_ONCE = 100  # jobs of one call, unless `batchSize` says otherwise


class CleanupRequest(StrictSerializer):
    timeoutMs = serializers.IntegerField(
        required=False, help_text="Milliseconds without a heartbeat; default 5 minutes."
    )
    dryRun = serializers.BooleanField(default=False, help_text="Only say what would be done.")
    batchSize = serializers.IntegerField(
        min_value=1, max_value=10_000, default=MOST_AT_ONCE, help_text="Jobs to clean up at most."
    )


class CleanedJob(serializers.Serializer):
    jobId = serializers.UUIDField()
    userId = serializers.IntegerField()
    kind = serializers.CharField()
    tokensRefunded = serializers.IntegerField()
    processingDuration = serializers.IntegerField(help_text="Milliseconds.")


class CleanupFailure(serializers.Serializer):
    jobId = serializers.UUIDField()
    error = serializers.CharField()


class CleanupResult(serializers.Serializer):
    totalFound = serializers.IntegerField()
    cleanedUp = serializers.IntegerField()
    failed = serializers.IntegerField()
    tokensRefunded = serializers.IntegerField()
    jobs = CleanedJob(many=True)
    errors = CleanupFailure(many=True)


class CleanupAnswer(serializers.Serializer):
    success = serializers.BooleanField()
    result = CleanupResult()
    message = serializers.CharField()


def represent(run: CleanupRun) -> dict:
    """A cleanup's report in the documented words."""
    message = f"Successfully cleaned up {run.cleaned} stuck jobs and refunded {run.tokens_refunded} tokens"
    if run.dry_run:
        message = f"Dry run: found {run.found} stuck jobs, nothing was changed"
    names = CleanedJob().fields
    return {
        "success": True,
        "result": {
            "totalFound": run.found,
            "cleanedUp": run.cleaned,
            "failed": run.failed,
            "tokensRefunded": run.tokens_refunded,
            "jobs": [{name: job[name] for name in names} for job in run.jobs],
            "errors": run.errors,
        },
        "message": message,
    }


class AdminCleanup(View):
    """Clean up stuck jobs: scope admin."""

    permission_classes = [IsAdmin]
    parser_classes = [AnyTypeJSONParser]

    @extend_schema(
        operation_id="admin_jobs_cleanup", request={"application/json": CleanupRequest}, responses=CleanupAnswer
    )
    def post(self, request):
        """Fail or retry jobs that no worker is alive for, with refunds. The body may be empty."""
        wanted = CleanupRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        fields = wanted.validated_data
        timeout = fields.get("timeoutMs")
        with in_words(timeout="timeoutMs", batch_size="batchSize"):
            run = cleanup.cleanup_stuck_jobs(
                by=f"user:{request.user.pk}",
                timeout=None if timeout is None else timeout / 1000,
                most=fields["batchSize"],
                dry_run=fields["dryRun"],
            )
        return Response(represent(run))


class CronCleanup(View):
    """The same for an outside scheduler."""

    authentication_classes = []
    permission_classes = []
    http_method_names = ["get"]  # not HEAD: it would clean up too

    @extend_schema(operation_id="cron_cleanup_jobs", responses=CleanupAnswer, auth=[{"cronSecret": []}])
    def get(self, request):
        """Clean up stuck jobs. Needs `Authorization: Bearer <CRON_SECRET>`; refused while no secret is set."""
        secret = settings.CRON_SECRET
        given = request.headers.get("Authorization", "")
        tried = throttles.attempt(request, "cron", "")
        tried.check()
        if not secret or not hmac.compare_digest(given.encode(), f"Bearer {secret}".encode()):
            tried.count()
            raise Refused(ErrorCode.not_authenticated, "Send Authorization: Bearer <CRON_SECRET>.")
        tried.remember()
        return Response(represent(cleanup.cleanup_stuck_jobs(by="cron", most=MOST_AT_ONCE)))
