"""The documents' own queries, run as written against the read-only views."""

from datetime import timedelta

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now

from jobs import lifecycle, sql_views
from jobs.errors import ErrorCode, JobError
from jobs.models import Job

pytestmark = pytest.mark.django_db

COLUMNS = {
    *("id", "status", "priority", "attempts", "max_attempts", "locked_at", "locked_by", "run_after"),
    *("processing_started_at", "processing_completed_at", "completed_at", "last_heartbeat_at", "stage", "progress"),
    *("input", "output", "idempotency_key", "last_error", "error_code", "created_at"),
}


def rows(query: str) -> list[dict]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.fixture
def ingest(submit, running):
    """One job in RUNNING without a beat for ten minutes, one SUCCEEDED, one FAILED, one QUEUED; all are INGEST."""
    made = {}
    for name in ("running", "succeeded", "failed"):
        made[name] = running(max_attempts=1)
    lifecycle.succeed(made["succeeded"], [])
    lifecycle.fail(made["failed"], JobError(ErrorCode.bad_input, "no pictures"))
    submit(key="k1", body_hash="h")
    silent = {"started_at": Now() - timedelta(minutes=20), "heartbeat_at": Now() - timedelta(minutes=10)}
    Job.objects.filter(pk=made["running"].job_id).update(**silent, stage="pipeline_running", progress=0.4)
    Job.objects.update(kind="INGEST", params={"s3_key": "videos/test-1.mp4"})
    return {name: str(lease.job_id) for name, lease in made.items()}


def test_every_view_answers_on_an_empty_database():
    for name in sql_views.VIEWS:
        assert rows(f"SELECT * FROM {name} LIMIT 10") == []


def test_the_queue_has_the_documented_columns_and_values(ingest):
    found = {str(row["id"]): row for row in rows("SELECT * FROM ingestion_jobs ORDER BY created_at")}
    assert set(next(iter(found.values()))) == COLUMNS
    done, failed = found[ingest["succeeded"]], found[ingest["failed"]]
    assert (done["status"], done["attempts"], done["error_code"]) == ("SUCCEEDED", 1, None)
    assert ingest["succeeded"] in str(done["output"])
    assert (failed["attempts"], failed["last_error"], failed["error_code"]) == (1, "no pictures", "bad_input")
    (waiting,) = [row for row in found.values() if row["status"] == "QUEUED"]
    assert (waiting["attempts"], waiting["idempotency_key"]) == (0, "k1")
    by_id = rows(
        f"SELECT id, status, stage, last_error, error_code FROM ingestion_jobs WHERE id = '{ingest['failed']}'"
    )
    assert [row["status"] for row in by_id] == ["FAILED"]
    assert len(rows("SELECT * FROM ingestion_jobs WHERE input->>'s3_key' LIKE 'videos/test%'")) == 4


def test_the_monitoring_queries(ingest):
    (running,) = rows("SELECT * FROM running_jobs_monitor")
    assert (str(running["id"]), running["stage"]) == (ingest["running"], "pipeline_running")
    assert abs(running["running_seconds"] - 1200) < 60 and abs(running["heartbeat_age_seconds"] - 600) < 60
    timing = {row["status"]: row for row in rows("SELECT * FROM job_timing_stats")}
    assert {"status", "count", "avg_duration_seconds", "p50_seconds", "p95_seconds"} <= set(timing["SUCCEEDED"])
    assert timing["SUCCEEDED"]["count"] == 1
    assert [(row["stage"], row["count"]) for row in rows("SELECT * FROM stage_distribution")] == [
        ("pipeline_running", 1)
    ]
    assert [str(row["id"]) for row in rows("SELECT * FROM dead_letter_jobs LIMIT 10")] == [ingest["failed"]]
    assert {row["status"]: row["count"] for row in rows("SELECT * FROM job_queue_stats")} == {
        "FAILED": 1,
        "QUEUED": 1,
        "RUNNING": 1,
        "SUCCEEDED": 1,
    }


def test_p50_and_p95_are_those_of_the_durations(running):
    for seconds in range(1, 101):
        lease = running(price=0)
        lifecycle.succeed(lease, [])
        job = Job.objects.filter(pk=lease.job_id)
        job.update(started_at=Now() - timedelta(seconds=seconds), finished_at=Now())
    (timing,) = rows("SELECT * FROM job_timing_stats")
    found = [round(float(timing[name])) for name in ("avg_duration_seconds", "p50_seconds", "p95_seconds")]
    assert found in ([50, 50, 95], [51, 50, 95])  # 50.5 on average


def test_the_studio_finds_its_stuck_jobs(ingest):
    if connection.vendor == "sqlite":  # the Studio's document asks in SQLite's words
        (stuck,) = rows(
            "SELECT job_id, status, heartbeat_at, (julianday('now') - julianday(heartbeat_at)) * 24 * 60"
            " as minutes_stale FROM jobs WHERE status = 'RUNNING'"
        )
        assert stuck["job_id"] == ingest["running"] and 9 < stuck["minutes_stale"] < 11
        names = {row["name"] for row in rows("PRAGMA table_info(jobs)")}
        assert {"heartbeat_at", "error_code", "error_message", "output_urls"} <= names
    else:
        stuck = rows("SELECT job_id FROM jobs WHERE heartbeat_at < NOW() - INTERVAL '5 minutes'")
        assert [str(row["job_id"]) for row in stuck] == [ingest["running"]]
        found = rows(
            "SELECT id, stage, EXTRACT(EPOCH FROM (NOW() - last_heartbeat_at))::int as heartbeat_age_seconds"
            " FROM ingestion_jobs WHERE status = 'RUNNING' AND last_heartbeat_at < NOW() - INTERVAL '5 minutes'"
        )
        assert [str(row["id"]) for row in found] == [ingest["running"]]


def test_nobody_writes_through_a_view(ingest):
    for change in (
        "UPDATE jobs SET status = 'FAILED'",
        "UPDATE ingestion_jobs SET status = 'RUNNING'",
        "DELETE FROM dead_letter_jobs",
    ):
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(change)
    assert Job.objects.filter(status="RUNNING").count() == 1
