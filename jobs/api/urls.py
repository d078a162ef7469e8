"""The API's addresses. Each answers with and without its last slash, never by a redirect."""

from django.urls import path

from . import docs, events, explain, jobs, metrics, outputs, parts, probes, runpod, tokens, upkeep, uploads, webhooks
from .base import both
from .dialects import urls as dialects

urlpatterns = [
    *both("api/jobs", jobs.Jobs, "jobs"),
    *both("api/jobs/estimate", jobs.JobEstimate, "jobs-estimate"),
    *both("api/jobs/<uuid:job_id>", jobs.JobDetail, "job"),
    *both("api/jobs/<uuid:job_id>/cancel", jobs.JobCancel, "job-cancel"),
    *both("api/jobs/<uuid:job_id>/retry", jobs.JobRetry, "job-retry"),
    *both("api/jobs/<uuid:job_id>/explain", explain.JobExplain, "job-explain"),
    *both("api/jobs/<uuid:job_id>/logs", explain.JobLogs, "job-logs"),
    *both("api/jobs/<uuid:job_id>/outputs/<str:name>", outputs.JobOutput, "job-output"),
    *both("api/jobs/<uuid:job_id>/events", events.JobEvents, "job-events"),
    *both("api/jobs/<uuid:job_id>/stream-token", events.JobStreamToken, "job-stream-token"),
    *both("api/events", events.AllEvents, "events"),
    *both("api/uploads", uploads.Uploads, "uploads"),
    *both("api/uploads/<uuid:upload_id>", uploads.UploadDetail, "upload"),
    *both("api/uploads/multipart", parts.PartUploads, "part-uploads"),
    *both("api/uploads/<uuid:upload_id>/complete", parts.PartUploadComplete, "part-upload-complete"),
    *both("api/tokens", tokens.Tokens, "tokens"),
    *both("api/webhooks", webhooks.Webhooks, "webhooks"),
    *both("api/webhooks/<uuid:webhook_id>", webhooks.WebhookDetail, "webhook"),
    *both("api/webhooks/<uuid:webhook_id>/rotate", webhooks.WebhookRotate, "webhook-rotate"),
    *both("api/webhooks/<uuid:webhook_id>/test", webhooks.WebhookTest, "webhook-test"),
    *both("api/webhooks/<uuid:webhook_id>/replay", webhooks.WebhookReplay, "webhook-replay"),
    *both("api/webhooks/<uuid:webhook_id>/deliveries", webhooks.WebhookDeliveries, "webhook-deliveries"),
    *both("api/webhooks/<uuid:webhook_id>/deliveries/<uuid:delivery_id>", webhooks.WebhookDelivery, "webhook-delivery"),
    *both(
        "api/webhooks/<uuid:webhook_id>/deliveries/<uuid:delivery_id>/replay",
        webhooks.WebhookDeliveryReplay,
        "webhook-delivery-replay",
    ),
    *both("api/admin/tokens", tokens.AdminTokens, "admin-tokens"),
    *both("api/admin/jobs/cleanup", upkeep.AdminCleanup, "admin-jobs-cleanup"),
    *both("api/cron/cleanup-jobs", upkeep.CronCleanup, "cron-cleanup-jobs"),
    *both("api/runpod/<uuid:call_id>/<str:secret>", runpod.RunpodWebhook, "runpod-webhook"),
    *dialects.urlpatterns,
    *both("livez", probes.Live, "livez"),
    *both("readyz", probes.Ready, "readyz"),
    *both("health", probes.Health, "health"),
    path("metrics", metrics.metrics, name="metrics"),
    path("metrics/", metrics.metrics),
    *both("api/schema", docs.SchemaView, "schema"),
    *both("api/docs", docs.SwaggerView, "docs"),
    path("api/docs/errors/", docs.errors, name="docs-errors"),
    path("api/docs/errors", docs.errors),
]
