"""The dialects' addresses, each with and without its last slash."""

from ..base import both
from . import analysis, ingestion, studio

urlpatterns = [
    *both("jobs", studio.StudioJobs, "studio-jobs"),
    *both("jobs/<str:job_id>", studio.StudioJob, "studio-job"),
    *both("jobs/<str:job_id>/cancel", studio.StudioCancel, "studio-cancel"),
    *both("api/ingest/enqueue", ingestion.IngestEnqueue, "ingest-enqueue"),
    *both("api/ingest/jobs", ingestion.IngestJobs, "ingest-jobs"),
    *both("api/ingest/jobs/<uuid:job_id>", ingestion.IngestJob, "ingest-job"),
    *both("api/ingest/stats", ingestion.IngestStats, "ingest-stats"),
    *both("api/upload", analysis.AnalysisUpload, "analysis-upload"),
    *both("api/job-status/<uuid:job_id>", analysis.AnalysisStatus, "analysis-status"),
    *both("api/job-status/<uuid:job_id>/error.json", analysis.AnalysisError, "analysis-error"),
    *both("api/cancel", analysis.AnalysisCancel, "analysis-cancel"),
]
