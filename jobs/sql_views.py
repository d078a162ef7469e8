"""Read-only SQL views for people who look into the database: the replaced systems' tables and monitoring queries.

`jobs` has the Studio's columns, `ingestion_jobs` the ingestion queue's; the others watch jobs of all kinds. A view of
one bare table could be written through on PostgreSQL; one that begins with WITH cannot, and is planned the same.
A later migration that alters `jobs_job` in a way that views do not survive (SQLite makes the table anew) calls `remove`
first and `install` last.
"""

from django.db.backends.base.base import BaseDatabaseWrapper

WORDS = {
    "sqlite": {
        "id": "substr(job.id, 1, 8) || '-' || substr(job.id, 9, 4) || '-' || substr(job.id, 13, 4) || '-'"
        " || substr(job.id, 17, 4) || '-' || substr(job.id, 21)",
        "epoch": "julianday({}) * 86400",
        "now": "julianday('now') * 86400",
        "object": "json_object",
        "array": "json_group_array",
        "none": "'[]'",
    },
    "postgresql": {
        "id": "job.id",
        "epoch": "EXTRACT(EPOCH FROM {})",
        "now": "EXTRACT(EPOCH FROM NOW())",
        "object": "json_build_object",
        "array": "json_agg",
        "none": "'[]'::json",
    },
}

VIEWS = {
    "jobs": """
        WITH job AS (SELECT * FROM jobs_job)
        SELECT {id} AS job_id, kind AS type, status, params, progress, stage,
               COALESCE((SELECT {array}('/api/jobs/' || {id} || '/outputs/' || name) FROM jobs_artifact
                         WHERE job_id = job.id AND job.status = 'SUCCEEDED'), {none}) AS output_urls,
               created_at, COALESCE(finished_at, heartbeat_at, started_at, created_at) AS updated_at, heartbeat_at,
               NULLIF(error_code, '') AS error_code, NULLIF(error_message, '') AS error_message
        FROM job""",
    "ingestion_jobs": """
        SELECT {id} AS id, status, priority, max_attempts,
               failures + CASE WHEN status IN ('RUNNING', 'SUCCEEDED') THEN 1 ELSE 0 END AS attempts,
               job.started_at AS locked_at, slot.host || '-' || slot.pid AS locked_by, run_after,
               job.started_at AS processing_started_at,
               CASE WHEN job.started_at IS NOT NULL THEN finished_at END AS processing_completed_at,
               finished_at AS completed_at, heartbeat_at AS last_heartbeat_at, stage, progress, params AS input,
               CASE WHEN status = 'SUCCEEDED' THEN {object}('ad_id', {id}) END AS output,
               (SELECT MIN(key) FROM jobs_idempotencykey WHERE job_id = job.id) AS idempotency_key,
               NULLIF(error_message, '') AS last_error,
               CASE WHEN stage = 'released_stale' THEN 'HEARTBEAT_TIMEOUT' ELSE NULLIF(error_code, '') END
                   AS error_code,
               job.created_at
        FROM jobs_job AS job LEFT JOIN jobs_slot AS slot ON slot.id = job.slot_id
        WHERE kind = 'INGEST'""",
    "dead_letter_jobs": """
        WITH job AS (SELECT * FROM jobs_job)
        SELECT {id} AS id, kind, status, failures AS attempts, max_attempts, stage, error_code,
               error_message AS last_error, params AS input, created_at, finished_at AS completed_at
        FROM job WHERE status = 'FAILED'""",
    "job_queue_stats": """
        SELECT status, COUNT(*) AS count, MIN(created_at) AS oldest, MAX(created_at) AS newest
        FROM jobs_job GROUP BY status""",
    "running_jobs_monitor": """
        WITH job AS (SELECT * FROM jobs_job)
        SELECT {id} AS id, kind, stage, progress, attempt,
               CAST({now} - {epoch:started_at} AS INTEGER) AS running_seconds,
               CAST({now} - {epoch:heartbeat_at} AS INTEGER) AS heartbeat_age_seconds
        FROM job WHERE status = 'RUNNING'""",
    "job_timing_stats": """
        WITH timed AS (
            SELECT status, {epoch:finished_at} - {epoch:started_at} AS seconds FROM jobs_job
            WHERE finished_at IS NOT NULL AND started_at IS NOT NULL),
        ranked AS (
            SELECT status, seconds, ROW_NUMBER() OVER (PARTITION BY status ORDER BY seconds) AS place,
                   COUNT(*) OVER (PARTITION BY status) AS count FROM timed)
        SELECT status, MAX(count) AS count, ROUND(AVG(seconds), 1) AS avg_duration_seconds,
               ROUND(MIN(CASE WHEN place >= 0.50 * count THEN seconds END), 1) AS p50_seconds,
               ROUND(MIN(CASE WHEN place >= 0.95 * count THEN seconds END), 1) AS p95_seconds
        FROM ranked GROUP BY status""",
    "stage_distribution": """
        SELECT stage, status, COUNT(*) AS count, ROUND(AVG({now} - {epoch:started_at}), 1) AS avg_age_seconds
        FROM jobs_job WHERE status IN ('RUNNING', 'RETRY') GROUP BY stage, status""",
}


class Epoch:
    """`{epoch:column}`: a time's seconds since an epoch, for differences."""

    def __init__(self, template: str):
        self.template = template

    def __format__(self, column: str) -> str:
        return self.template.format(column)


def install(connection: BaseDatabaseWrapper) -> None:
    """Make the views anew."""
    remove(connection)
    words = WORDS[connection.vendor]
    words = {**words, "epoch": Epoch(words["epoch"])}
    with connection.cursor() as cursor:
        for name, query in VIEWS.items():
            cursor.execute(f"CREATE VIEW {name} AS {query.format(**words)}")


def remove(connection: BaseDatabaseWrapper) -> None:
    """Take the views away. Does no harm where there are none."""
    with connection.cursor() as cursor:
        for name in VIEWS:
            cursor.execute(f"DROP VIEW IF EXISTS {name}")
