"""What must hold after any run: SQL on the rows, then files and processes. One function checks all of it."""

import math
from decimal import Decimal

from django.conf import settings
from django.core.files.storage import default_storage
from django.db.models import Sum

from jobs import blobs, procfs
from jobs.errors import ErrorCode
from jobs.models import FINAL, Artifact, Job, Status
from tokens import ledger
from tokens.models import Account, Transaction

ALLOWED = {  # status → what may follow it in a job's events
    None: {"QUEUED"},
    "QUEUED": {"RUNNING", "CANCELED", "FAILED"},
    "RUNNING": {"SUCCEEDED", "FAILED", "CANCELED", "RETRY"},
    "RETRY": {"RUNNING", "CANCELED", "FAILED"},
    "FAILED": {"QUEUED"},
    "SUCCEEDED": set(),
    "CANCELED": set(),
}


def check(*, files: bool = True) -> None:
    """Assert every invariant on the database at rest; `files` also asks the storage and the work folders."""
    money()
    for job in Job.objects.all().prefetch_related("events", "outputs"):
        history(job)
        charges(job)
        if files:
            outputs(job)
    if files:
        strays()


def money() -> None:
    """Balances are the sums of their ledgers, and never negative."""
    assert ledger.drifted() == []
    assert not Account.objects.filter(balance__lt=0).exists()
    total = Account.objects.aggregate(sum=Sum("balance"))["sum"] or 0
    assert total == (Transaction.objects.aggregate(sum=Sum("amount"))["sum"] or 0)


def history(job: Job) -> None:
    """The events are a path of the state machine that ends where the row stands; one claim an attempt."""
    before, attempt, rounds = None, 0, 1
    for event in job.events.all():
        assert event.status in ALLOWED[before], f"{job}: {before} -> {event.status}"
        if event.status == Status.RUNNING:
            attempt += 1
        if before == Status.FAILED:
            rounds += 1
        assert event.attempt == attempt, f"{job}: event of attempt {event.attempt} in attempt {attempt}"
        before = event.status
    assert (before, attempt, rounds) == (job.status, job.attempt, job.round), str(job)
    assert job.failures <= job.max_attempts
    if job.status in FINAL:
        assert job.finished_at and job.finished_at >= job.created_at
    assert bool(job.error_code) == (job.status in (Status.FAILED, Status.CANCELED)) or job.status not in FINAL


def charges(job: Job) -> None:
    """One charge a paid round, and its refund exactly if the round ended in a status and code that give it back: in
    full, but for what was cancelled while it ran, which gives back what it was sold with."""
    booked = list(Transaction.objects.filter(reference__startswith=f"job:{job.pk}:").order_by("id"))
    charged = {row.pk: row for row in booked if row.kind == "CHARGE"}
    refunds = {row.reverses_id: row for row in booked if row.kind == "REFUND"}
    assert len(charged) == (job.round if job.price else 0), f"{job}: {len(charged)} charges in {job.round} rounds"
    assert set(refunds) <= set(charged)
    for charge_id in set(refunds) - {job.charge_id}:
        assert refunds[charge_id].amount == -charged[charge_id].amount
    if not job.price:
        return
    ended_badly = job.status in (Status.FAILED, Status.CANCELED)
    due = job.price if ended_badly and ErrorCode[job.error_code].row.refund else 0
    ended_from = [event.status for event in job.events.all()][-2:][0]
    if (ended_from, job.status) == (Status.RUNNING, Status.CANCELED):
        left = {"none": 0, "unused": math.ceil(job.price * (1 - Decimal(str(job.progress))))}
        due = left.get(job.cancel_refund, due)
    returned = refunds[job.charge_id].amount if job.charge_id in refunds else 0
    assert returned == due, f"{job}: {job.status} {job.error_code}, refunds {refunds}, due {due}"
    told = [event.tokens for event in job.events.all() if event.round == job.round and event.tokens > 0]
    assert told == [due] * bool(due), f"{job}: events tell of refunds {told}, due {due}"
    for charge_id in set(charged) - {job.charge_id}:  # earlier rounds ended FAILED, refunded
        assert charge_id in refunds


def outputs(job: Job) -> None:
    """Outputs exist exactly when SUCCEEDED, each file as its row says."""
    rows = list(job.outputs.all())
    assert job.status == Status.SUCCEEDED or not rows, f"{job}: {job.status} with outputs"
    for row in rows:
        assert default_storage.exists(row.key) and default_storage.size(row.key) == row.bytes, row.key


def strays() -> None:
    """No stored output without a row, no work folder without a living process that runs something."""
    stored = {blob.key for blob in blobs.listing("jobs")}
    named = set(Artifact.objects.values_list("key", flat=True))
    running = {f"jobs/{pk}/" for pk in Job.objects.filter(status=Status.RUNNING).values_list("pk", flat=True)}
    assert not [key for key in stored - named if not key.startswith(tuple(running))], stored - named
    for folder in settings.WORK_ROOT.glob("*"):
        pid, started = (int(part) for part in folder.name.split(".")[-4:-2])
        assert procfs.started(pid) == started, f"work folder of a dead process: {folder.name}"
