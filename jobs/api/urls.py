"""The API's addresses. Each answers with and without its last slash, never by a redirect."""

from django.urls import path

from . import docs, jobs, outputs, parts, probes, tokens, upkeep, uploads
from .base import both
from .dialects import urls as dialects

urlpatterns = [
    *both("api/jobs", jobs.Jobs, "jobs"),
    *both("api/jobs/estimate", jobs.JobEstimate, "jobs-estimate"),
    *both("api/jobs/<uuid:job_id>", jobs.JobDetail, "job"),
    *both("api/jobs/<uuid:job_id>/cancel", jobs.JobCancel, "job-cancel"),
    *both("api/jobs/<uuid:job_id>/retry", jobs.JobRetry, "job-retry"),
    *both("api/jobs/<uuid:job_id>/outputs/<str:name>", outputs.JobOutput, "job-output"),
    *both("api/uploads", uploads.Uploads, "uploads"),
    *both("api/uploads/<uuid:upload_id>", uploads.UploadDetail, "upload"),
    *both("api/uploads/multipart", parts.PartUploads, "part-uploads"),
    *both("api/uploads/<uuid:upload_id>/complete", parts.PartUploadComplete, "part-upload-complete"),
    *both("api/tokens", tokens.Tokens, "tokens"),
    *both("api/admin/tokens", tokens.AdminTokens, "admin-tokens"),
    *both("api/admin/jobs/cleanup", upkeep.AdminCleanup, "admin-jobs-cleanup"),
    *both("api/cron/cleanup-jobs", upkeep.CronCleanup, "cron-cleanup-jobs"),
    *dialects.urlpatterns,
    *both("livez", probes.Live, "livez"),
    *both("readyz", probes.Ready, "readyz"),
    *both("health", probes.Health, "health"),
    *both("api/schema", docs.SchemaView, "schema"),
    *both("api/docs", docs.SwaggerView, "docs"),
    path("api/docs/errors/", docs.errors, name="docs-errors"),
    path("api/docs/errors", docs.errors),
]
