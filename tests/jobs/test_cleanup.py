"""Who is stuck: the monitor and the cleanup each find a case that the other leaves; one bad job stops nobody."""

import subprocess
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now

from jobs import cleanup, procfs, slots
from jobs.errors import Refused
from jobs.models import CleanupRun, Job, Slot, Status
from tests import invariants
from tokens.models import Account

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh_clock(monkeypatch):
    monkeypatch.setattr(cleanup, "clock", cleanup._Clock())


def silent_for(seconds: float, lease) -> None:
    Job.objects.filter(pk=lease.job_id).update(heartbeat_at=Now() - timedelta(seconds=seconds))


def status(lease) -> str:
    return Job.objects.get(pk=lease.job_id).status


def test_the_cleanup_finds_what_is_silent_for_its_shorter_timeout(running):
    lease = running()
    silent_for(310, lease)
    assert not cleanup.monitor_heartbeats().settled  # 600 s are not over
    assert cleanup.cleanup_stuck_jobs(by="test").cleaned == 1
    assert status(lease) == Status.RETRY
    invariants.check()


def test_the_cleanup_ends_what_beats_past_its_limit(running, ann):
    lease = running()
    Job.objects.update(deadline_at=Now() - timedelta(seconds=61))
    assert not cleanup.monitor_heartbeats().settled  # it beats
    run = cleanup.cleanup_stuck_jobs(by="test")
    job = Job.objects.get(pk=lease.job_id)
    assert (run.cleaned, run.tokens_refunded, job.status, job.error_code) == (1, 10, Status.FAILED, "timeout")
    invariants.check()


def test_the_monitor_ends_at_once_what_has_no_process(running):
    """The cleanup would wait for its timeout; the monitor of the same host sees that the process is gone."""
    process = subprocess.Popen(["sleep", "60"])
    slot = Slot.objects.create(
        **slots.here(), pid=process.pid, process_started=procfs.started(process.pid), queues=["cpu"]
    )
    lease = running()
    Job.objects.update(slot=slot)
    assert not cleanup.monitor_heartbeats().settled  # it lives
    process.kill()
    process.wait()
    assert cleanup.cleanup_stuck_jobs(by="test").found == 0
    assert len(cleanup.monitor_heartbeats().settled) == 1
    job = Job.objects.get(pk=lease.job_id)
    assert (job.status, job.error_code) == (Status.RETRY, "worker_lost")
    assert not Slot.objects.exists()
    invariants.check()


def test_a_healthy_long_run_is_never_touched(running):
    lease = running()
    Job.objects.update(started_at=Now() - timedelta(hours=5), deadline_at=Now() + timedelta(hours=5))
    assert cleanup.cleanup_stuck_jobs(by="test").found == 0
    assert not cleanup.monitor_heartbeats().settled
    assert status(lease) == Status.RUNNING


def test_a_dry_run_writes_only_its_report(running):
    lease = running()
    silent_for(400, lease)
    run = cleanup.cleanup_stuck_jobs(by="test", dry_run=True)
    assert (run.found, run.cleaned, run.dry_run, status(lease)) == (1, 0, True, Status.RUNNING)
    assert run.jobs[0]["jobId"] == str(lease.job_id)
    assert CleanupRun.objects.get() == run


@pytest.mark.parametrize("timeout", [0, -1, 5, 14.9, float("nan"), 1e12])
def test_a_timeout_that_would_hit_the_healthy_is_refused(timeout):
    with pytest.raises(Refused) as refused:
        cleanup.cleanup_stuck_jobs(by="test", timeout=timeout)
    assert refused.value.fields[0][0] == "timeout"
    assert not CleanupRun.objects.exists()


def test_most_and_batches(running):
    leases = [running(price=1) for _ in range(7)]
    for lease in leases:
        silent_for(400, lease)
    assert cleanup.cleanup_stuck_jobs(by="test", batch_size=2, most=5).cleaned == 5
    assert cleanup.cleanup_stuck_jobs(by="test", batch_size=2).cleaned == 2
    invariants.check()


POISON = {
    "sqlite": [
        "CREATE TRIGGER poison BEFORE INSERT ON tokens_transaction WHEN NEW.kind='REFUND' AND NEW.reference='{ref}' "
        "BEGIN SELECT RAISE(ABORT, 'poisoned'); END"
    ],
    "postgresql": [
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.kind='REFUND' AND "
        "NEW.reference='{ref}' THEN RAISE EXCEPTION 'poisoned'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER poison BEFORE INSERT ON tokens_transaction FOR EACH ROW EXECUTE FUNCTION poison()",
    ],
}
CURE = {"sqlite": ["DROP TRIGGER poison"], "postgresql": ["DROP FUNCTION poison CASCADE"]}


def _sql(statements, **names):
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement.format(**names) if names else statement)


@pytest.mark.django_db(transaction=True)
def test_one_poisoned_refund_stops_nobody(ann, running):
    """F43: 50 stuck, one of them cannot be refunded: 49 done, one in `errors`, the next run does it."""
    leases = [running(price=2, max_attempts=1) for _ in range(50)]
    for lease in leases:
        silent_for(400, lease)
    bad = leases[20]
    _sql(POISON[connection.vendor], ref=f"job:{bad.job_id}:1")
    try:
        run = cleanup.cleanup_stuck_jobs(by="test")
    finally:
        _sql(CURE[connection.vendor])
    assert (run.found, run.cleaned, run.failed, run.tokens_refunded) == (50, 49, 1, 98)
    assert run.errors[0]["jobId"] == str(bad.job_id) and "poisoned" in run.errors[0]["error"]
    assert status(bad) == Status.RUNNING
    assert cleanup.cleanup_stuck_jobs(by="test").cleaned == 1
    assert Account.objects.get(pk=ann.pk).balance == 1000
    invariants.check()


@pytest.mark.django_db(transaction=True)
def test_two_sweeps_and_the_monitor_at_once_refund_once(ann, bob, submit):
    import threading

    from django.db import connections

    from jobs import lifecycle

    for number in range(60):
        submit(ann if number % 2 else bob, price=3, max_attempts=1)
        lifecycle.claim("cpu")
    Job.objects.update(heartbeat_at=Now() - timedelta(seconds=700))
    gate, done = threading.Barrier(3), []

    def act(sweep):
        gate.wait()
        try:
            done.append(sweep())
        finally:
            connections.close_all()

    sweeps = [
        lambda: cleanup.cleanup_stuck_jobs(by="one", batch_size=7).cleaned,
        lambda: cleanup.cleanup_stuck_jobs(by="two", batch_size=11).cleaned,
        lambda: len(cleanup.monitor_heartbeats().settled),
    ]
    threads = [threading.Thread(target=act, args=[sweep]) for sweep in sweeps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cleanup.cleanup_stuck_jobs(by="rest")
    assert sum(done) <= 60
    assert not Job.objects.exclude(status="FAILED").exists()
    assert [Account.objects.get(pk=person.pk).balance for person in (ann, bob)] == [1000, 1000]
    invariants.check()


def test_the_cleanup_finds_by_index(running):
    running()
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
    plan = cleanup.find_stuck(300).order_by("started_at").explain()
    # SQLite cannot prove a partial index from a bound parameter; its index on status serves as well
    assert ("job_running" if connection.vendor == "postgresql" else "job_by_status") in plan, plan


def test_after_a_jump_of_the_clock_nothing_is_reaped_for_one_timeout(running, monkeypatch):
    lease = running()
    silent_for(700, lease)
    monkeypatch.setattr(cleanup.clock, "_last", (cleanup.time.time() - 3600, cleanup.time.monotonic()))
    reaped = len(cleanup.monitor_heartbeats().settled)
    assert reaped == (0 if connection.vendor == "sqlite" else 1)  # PostgreSQL's clock is not this host's
    assert (status(lease) == Status.RUNNING) == (connection.vendor == "sqlite")
