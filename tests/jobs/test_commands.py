"""The operator's commands: cleanup_stuck_jobs (dry unless told) and fail_job."""

import io
import json
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models.functions import Now

from jobs import lifecycle
from jobs.errors import LeaseLost
from jobs.models import CleanupRun, Job
from tests import invariants
from tokens.models import Account

NOBODYS = "01900000-0000-7000-8000-000000000000"  # an id that no job has


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=out)
    return out.getvalue()


@pytest.fixture
def stuck(running):
    lease = running(max_attempts=1)
    Job.objects.filter(pk=lease.job_id).update(heartbeat_at=Now() - timedelta(hours=1))
    return Job.objects.get(pk=lease.job_id)


def test_cleanup_shows_then_does(stuck, ann):
    shown = run("cleanup_stuck_jobs")
    assert str(stuck.pk) in shown and "would clean up 1 jobs; --execute does it" in shown
    stuck.refresh_from_db()
    assert stuck.status == "RUNNING"
    assert "cleaned up 1 of 1 jobs, 10 tokens refunded" in run("cleanup_stuck_jobs", "--execute")
    stuck.refresh_from_db()
    assert (stuck.status, Account.objects.get(pk=ann.pk).balance) == ("FAILED", 1000)
    assert list(CleanupRun.objects.values_list("by", "dry_run")) == [("command", False), ("command", True)]


def test_cleanup_takes_its_own_timeout_and_speaks_json(stuck):
    report = json.loads(run("cleanup_stuck_jobs", "--timeout", "7200", "--json"))
    assert (report["found"], report["dry_run"], report["timeout"]) == (0, True, 7200.0)
    report = json.loads(run("cleanup_stuck_jobs", "--batch-size", "1", "--json", "--execute"))
    assert (report["found"], report["cleaned"], report["tokens_refunded"]) == (1, 1, 10)
    assert report["jobs"][0]["jobId"] == str(stuck.pk)


@pytest.mark.django_db
@pytest.mark.parametrize("wrong", [("--timeout", "1"), ("--timeout", "nan"), ("--batch-size", "0")])
def test_cleanup_refuses_naming_the_option(wrong):
    with pytest.raises(CommandError, match=f"{wrong[0]}: Must be"):
        run("cleanup_stuck_jobs", *wrong)


@pytest.mark.django_db(transaction=True)
def test_cleanup_that_could_not_settle_a_job_fails(stuck, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("planted")

    monkeypatch.setattr("jobs.lifecycle.settle", broken)
    with pytest.raises(CommandError, match="1 jobs could not be settled"):
        run("cleanup_stuck_jobs", "--execute")


def test_fail_job_ends_it_refunded_with_the_reason(submit, ann):
    job = submit()
    assert run("fail_job", str(job.pk), "--reason", "wrong model") == (
        f"{job.pk} is FAILED (manual_intervention): 10 tokens refunded\n"
    )
    job.refresh_from_db()
    assert (job.status, job.error_message) == ("FAILED", "wrong model")
    assert Account.objects.get(pk=ann.pk).balance == 1000
    with pytest.raises(CommandError, match=r"^The job is FAILED\.$"):
        run("fail_job", str(job.pk), "--reason", "again")
    assert Account.objects.get(pk=ann.pk).balance == 1000


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("job", "reason", "told"),
    [
        (NOBODYS, "x", "There is no such thing"),
        ("nonsense", "x", "nonsense is not a job's id"),
        (NOBODYS, "  ", "--reason must have"),
        (NOBODYS, "x" * 1001, "--reason must have"),
    ],
)
def test_fail_job_refuses_in_one_sentence(job, reason, told):
    with pytest.raises(CommandError, match=told):
        run("fail_job", job, "--reason", reason)


def test_a_rehearsed_crash_is_found_and_refunded(submit, running, ann):
    lease, waiting = running(max_attempts=1), submit(max_attempts=1)
    for job_id in (waiting.pk, lease.job_id):
        assert "stopped 10 minutes ago" in run("rehearse", "stuck", str(job_id), "--minutes", "10")
    with pytest.raises(LeaseLost):
        lifecycle.succeed(lease, [])  # the real worker has lost it
    assert "cleaned up 2 of 2 jobs, 20 tokens refunded" in run("cleanup_stuck_jobs", "--execute")
    assert Account.objects.get(pk=ann.pk).balance == 1000
    with pytest.raises(CommandError, match="FAILED"):
        run("rehearse", "stuck", str(waiting.pk))
    invariants.check()


def test_stale_jobs_are_released_in_the_queues_words(running, ann):
    lease, once = running(max_attempts=5), running(max_attempts=1)
    Job.objects.update(kind="INGEST", heartbeat_at=Now() - timedelta(minutes=10))
    assert run("worker", "--release-stale") == "Released 2 stale jobs\n"
    assert run("worker", "--release-stale") == "Released 0 stale jobs\n"
    with connection.cursor() as cursor:
        cursor.execute("SELECT status, stage, last_error, error_code FROM ingestion_jobs ORDER BY max_attempts")
        failed, released = cursor.fetchall()
    assert released == ("RETRY", "released_stale", "The worker timed out: no heartbeat for 300 s.", "HEARTBEAT_TIMEOUT")
    assert (failed[0], failed[3]) == ("FAILED", "worker_timeout")
    assert "worker timed out" in released[2]
    assert {lease.job_id, once.job_id} == set(Job.objects.values_list("pk", flat=True))
    Job.objects.update(kind="KITCHEN")
    invariants.check()


def test_running_jobs_are_shown(running):
    assert run("worker", "--show-running") == "Running jobs: 0\n"
    lease = running()
    Job.objects.update(stage="pipeline_running", progress=0.6, started_at=Now() - timedelta(seconds=120))
    first, second = run("worker", "--show-running").splitlines()
    assert first == "Running jobs: 1"
    assert second.startswith(f"  {str(lease.job_id)[:8]}...: stage=pipeline_running progress=60% running=12")
    assert "heartbeat_age=" in second


def test_no_rehearsal_in_production(submit, settings):
    settings.PRODUCTION = True
    job = submit()
    with pytest.raises(CommandError, match="Refused in production"):
        run("rehearse", "stuck", str(job.pk))
    job.refresh_from_db()
    assert job.status == "QUEUED"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "words",
    [
        ("rehearse", "stuck", NOBODYS, "--minutes", "nan"),
        ("rehearse", "stuck", NOBODYS, "--minutes", "inf"),
        ("worker", "--once", "--poll-interval", "nan"),
    ],
)
def test_what_is_no_number_is_refused_naming_the_option(words):
    with pytest.raises(CommandError, match=words[-2]):
        run(*words)
