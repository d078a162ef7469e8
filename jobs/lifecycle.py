"""Every write of a job. Each transition is one transaction: the job's row, one JobEvent, then the ledger.

An attempt is a lease with a fencing token: what a run writes is conditional on (id, RUNNING, attempt), so a run that
was cancelled, reaped or replaced can write nothing. Jobs are locked by id, then accounts by id, everywhere.
`submit` and `adopt`, which make the row, and `retry`, which sells it again, are in `sale`.
"""

import json
import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import F, QuerySet, Value
from django.db.models.functions import Now

from tokens import ledger

from . import artifacts, dispatch, history, policy, tally
from .errors import ErrorCode, JobError, LeaseLost, Refused
from .faults import fault
from .models import FINAL, LIVE, WAITING, Artifact, IdempotencyKey, Job, JobEvent, JobInput, Status
from .sale import adopt as adopt  # callers know one place
from .sale import locked
from .sale import retry as retry
from .sale import submit as submit
from .transactions import write
from .words import span

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lease:
    """The right to work on one attempt of a job, with what its run and its settling need to know."""

    job_id: uuid.UUID
    attempt: int
    round: int
    round_attempts: int
    kind: str
    queue: str
    params: dict[str, Any]
    owner_id: int
    failures: int
    max_attempts: int
    run_limit: float  # seconds
    stall_limit: float  # seconds


class Running(NamedTuple):
    """What settling reads of a RUNNING job: a sweep of thousands has no time for whole rows and model objects."""

    pk: uuid.UUID
    owner_id: int
    kind: str
    tier: str
    queue: str
    attempt: int
    round_attempts: int
    failures: int
    max_attempts: int
    price: int
    charge_id: int | None
    started_at: datetime
    deadline_at: datetime
    heartbeat_at: datetime


@dataclass(frozen=True)
class Settled:
    """How one attempt that somebody ended came out."""

    job: Running | Job  # as it was before
    status: Status
    code: ErrorCode
    tokens: int  # refunded


# --- claim, beat, settle: one attempt ------------------------------------------------------------------------------

_DEADLINE = {
    "postgresql": "STATEMENT_TIMESTAMP() + run_limit * INTERVAL '1 second'",
    "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW', run_limit || ' seconds')",
}
_SKIP = {"postgresql": "FOR UPDATE SKIP LOCKED", "sqlite": ""}
CLAIM = """
UPDATE jobs_job SET status = 'RUNNING', attempt = attempt + 1, round_attempts = round_attempts + 1, run_after = NULL,
       started_at = {now}, heartbeat_at = {now}, deadline_at = {deadline}, slot_id = %s, progress = 0, stage = 'claimed'
WHERE run_after IS NOT NULL AND id = (
    SELECT id FROM jobs_job WHERE queue = %s AND run_after IS NOT NULL AND run_after <= {now}
    AND (cancel_at IS NULL OR cancel_at > {now}) AND NOT EXISTS (SELECT 1 FROM jobs_pause WHERE queue = %s)
    ORDER BY priority DESC, run_after LIMIT 1 {skip})
RETURNING id, round, attempt, round_attempts, kind, queue, params, owner_id, failures, max_attempts, run_limit,
          stall_limit
"""
SUCCEED = """
UPDATE jobs_job SET status = 'SUCCEEDED', finished_at = {now}, heartbeat_at = {now}, progress = 1, stage = 'succeeded',
       error_code = '', error_message = ''
WHERE id = %s AND status = 'RUNNING' AND attempt = %s
RETURNING id, round, attempt
"""


def claim_sql() -> str:
    """The claim's statement for the database in use: the best due job by priority, then by due time."""
    vendor = connection.vendor
    return CLAIM.format(now=history.NOW[vendor], deadline=_DEADLINE[vendor], skip=_SKIP[vendor])


def claim(queue: str, slot_id: int | None = None) -> Lease | None:
    """Take the best due job of `queue` as a new attempt; None if nothing is due or the queue is paused. Two callers
    never get the same."""
    rows = history.move(claim_sql(), [slot_id, queue, queue], Status.RUNNING, by="worker")
    if not rows:
        return None
    job_id, number, attempt, round_attempts, kind, name, params, *rest = rows[0]
    job_id = job_id if isinstance(job_id, uuid.UUID) else uuid.UUID(job_id)
    return Lease(job_id, attempt, number, round_attempts, kind, name, json.loads(params), *rest)


def _held(lease: Lease) -> QuerySet[Job]:
    """The job, only while this attempt holds it: the WHERE that all of a run's writes go through."""
    return Job.objects.filter(pk=lease.job_id, status=Status.RUNNING, attempt=lease.attempt)


def holds(lease: Lease) -> bool:
    """Whether the attempt still holds its job; a read."""
    return _held(lease).exists()


def beat(lease: Lease, *, progress: float, stage: str) -> None:
    """Write the heartbeat, and progress (0.0 to 1.0) and stage with it. LeaseLost if the job was taken away."""
    if not _held(lease).update(heartbeat_at=Now(), progress=progress, stage=stage[:40]):
        raise LeaseLost(lease.job_id, lease.attempt)


def succeed(lease: Lease, stored: Iterable[Artifact], stages: history.Stages | None = None) -> None:
    """Publish: SUCCEEDED, with its outputs' rows and what its `stages` took. LeaseLost, with nothing written, if the
    job was taken away."""
    if outputs := list(stored):
        _publish(lease, outputs, stages)
    else:
        _succeed(lease, stages)


@write
def _publish(lease: Lease, outputs: list[Artifact], stages: history.Stages | None) -> None:
    _succeed(lease, stages)
    for output in outputs:
        output.pk = None  # as in _sell
    Artifact.objects.bulk_create(outputs)
    fault("settle.before_commit")


def _succeed(lease: Lease, stages: history.Stages | None) -> None:
    succeeded = SUCCEED.format(now=history.NOW[connection.vendor])
    held = [history.stored_id(lease.job_id), lease.attempt]
    if not history.move(succeeded, held, Status.SUCCEEDED, by="worker", stages=stages):
        raise LeaseLost(lease.job_id, lease.attempt)


def fail(lease: Lease, error: JobError, *, by: str = "worker", stages: history.Stages | None = None) -> Settled:
    """Settle a failed attempt: RETRY while the budget lasts and the error allows it, else FAILED and refunded.

    LeaseLost, with nothing written, if the job was taken away.
    """
    settled = settle(_held(lease), lambda job: error, by=by, wait=True, stages=stages)
    if not settled:
        raise LeaseLost(lease.job_id, lease.attempt)
    return settled[0]


def outcome(lease: Lease) -> Status | None:
    """How this attempt was settled, from its events; None while it is not. For a settle whose answer got lost."""
    ended = JobEvent.objects.filter(job_id=lease.job_id, attempt=lease.attempt).exclude(
        status__in=[Status.QUEUED, Status.RUNNING]
    )
    status = ended.values_list("status", flat=True).first()
    return Status(status) if status else None


@write
def settle(
    stuck: QuerySet[Job],
    verdict: Callable[[Running], JobError],
    *,
    by: str,
    wait: bool = False,
    stage: str = "released",
    stages: history.Stages | None = None,
) -> list[Settled]:
    """End the RUNNING attempts that `stuck` selects, each by its verdict: the one way out of RUNNING by failure.

    One transaction: into RETRY (at `stage`) or FAILED, one event each, refunds. Rows that somebody else holds are left
    out unless `wait`. Returns what was settled; a row that moved on meanwhile is not in it. `stages`: what those of the
    one attempt took, where its own process settles it.
    """
    jobs = stuck.filter(status=Status.RUNNING).order_by("id").select_for_update(skip_locked=not wait)
    ended: list[Settled] = []
    waiting: dict[tuple[int, JobError], list[Running]] = {}
    failed: dict[tuple[int, JobError], list[Running]] = {}
    for job in map(Running._make, jobs.values_list(*Running._fields)):
        error = verdict(job)
        again, failures = policy.tries_again(
            error.code,
            retryable=error.retryable,
            failures=job.failures,
            max_attempts=job.max_attempts,
            round_attempts=job.round_attempts,
            postponed=error.postpone is not None,
        )
        (waiting if again else failed).setdefault((failures, error), []).append(job)
    for (failures, error), batch in waiting.items():
        handed_back = failures == batch[0].failures and error.postpone is None
        pause = _backoff(failures) if error.postpone is None else timedelta(seconds=error.postpone)
        _running(batch).update(
            status=Status.RETRY,
            failures=failures,
            run_after=Now() if handed_back else Now() + pause,
            stage=stage,
            error_code=error.code.name,
            error_message=error.message,
        )
        history.tell_all([job.pk for job in batch], by=by, stages=stages)
        ended += [Settled(job, Status.RETRY, error.code, 0) for job in batch]
        for queue in {job.queue for job in batch} if handed_back else ():
            dispatch.nudge(queue)
    for (failures, error), batch in failed.items():
        ended += _end(_running(batch), batch, Status.FAILED, error, by=by, failures=failures, stages=stages)
    for done in ended:
        _discard_after_commit(done.job)
    fault("settle.before_commit")
    return ended


def _running(jobs: list[Running]) -> QuerySet[Job]:
    return Job.objects.filter(pk__in=history.among([job.pk for job in jobs]), status=Status.RUNNING)


def _backoff(failures: int):
    own = settings.JOBSITE
    return policy.backoff(
        failures, initial=own["BACKOFF_INITIAL"], factor=own["BACKOFF_FACTOR"], most=own["BACKOFF_MAX"]
    )


# --- cancel, fail by hand, delete: the owner's and the operator's ---------------------------------------------------


@write
def cancel(job_id: uuid.UUID, *, by: str) -> Job:
    """End a live job at once and give back what `back_if_cancelled` says.

    A second cancel answers the same; Refused(job_is_final) else.
    """
    job = locked(job_id)
    if job.status == Status.CANCELED:
        return job
    _end_live(job, Status.CANCELED, JobError(ErrorCode.user_canceled), by=by)
    log.info("Job %s cancelled by %s", job.pk, by)
    if job.status in WAITING:
        log.info("Job %s was cancelled before processing. Skipping.", job.pk)
    return Job.objects.get(pk=job.pk)


def late() -> QuerySet[Job]:
    """The live jobs whose deadline has passed."""
    return Job.objects.filter(cancel_at__isnull=False, cancel_at__lte=Now(), finished_at=None)


@write
def cancel_late(job_id: uuid.UUID) -> bool:
    """Cancel a job whose deadline has passed, as its owner could. False, with nothing written, if it is not late."""
    job = late().filter(pk=job_id).select_for_update().first()
    if job is None:
        return False
    error = JobError(
        ErrorCode.deadline_passed, f"It had not ended {span(job.deadline_seconds or 0)} after it was sold."
    )
    _end_live(job, Status.CANCELED, error, by="deadline")
    log.info("Job %s cancelled: %s", job.pk, error)
    return True


def back_if_cancelled(job: Job) -> int:
    """Whole tokens that cancelling this live job gives back: all while it waits, while it runs as it was sold."""
    return policy.back_if_cancelled(
        job.price, job.cancel_refund, running=job.status == Status.RUNNING, progress=job.progress
    )


@write
def fail_by_hand(job_id: uuid.UUID, *, reason: str, by: str) -> Job:
    """The operator ends a live job: FAILED manual_intervention, refunded. Refused(job_is_final) if it has ended."""
    _end_live(locked(job_id), Status.FAILED, JobError(ErrorCode.manual_intervention, reason), by=by)
    return Job.objects.get(pk=job_id)


@write
def strand(job_id: uuid.UUID, *, ago: timedelta, by: str) -> Job:
    """For rehearsals: claim a live job for a worker that stopped beating `ago`. Refused(job_is_final) if it ended."""
    job = locked(job_id)
    if job.status in FINAL:
        raise Refused(ErrorCode.job_is_final, f"The job is {job.status}.")
    if job.status == Status.RUNNING:
        history.tell(job.pk, job.round, job.attempt, Status.RETRY, by=by, message="Taken away for a rehearsal.")
    Job.objects.filter(pk=job.pk).update(
        status=Status.RUNNING,
        attempt=job.attempt + 1,
        round_attempts=job.round_attempts + 1,
        run_after=None,
        started_at=Now() - ago,
        heartbeat_at=Now() - ago,
        deadline_at=Now() + timedelta(seconds=job.run_limit),
        slot=None,
        stage="claimed",
    )
    history.tell(job.pk, job.round, job.attempt + 1, Status.RUNNING, by=by)
    return Job.objects.get(pk=job.pk)


def delete(job_id: uuid.UUID, *, by: str, live: bool = True) -> int:
    """Remove a job, its events and its outputs; a live one is cancelled first, or refused unless `live`. Ledger rows
    stay.

    Returns how many output files are removed. Refused(job_in_use) while a live job needs one of them.
    """
    try:
        return _delete(job_id, by=by, live=live)
    except IntegrityError as error:  # a job that needs the output was submitted at the same time
        raise Refused(ErrorCode.job_in_use) from error


@write
def _delete(job_id: uuid.UUID, *, by: str, live: bool) -> int:
    job = locked(job_id)
    if JobInput.objects.filter(artifact__job=job, job__status__in=LIVE).exists():
        raise Refused(ErrorCode.job_in_use)
    if job.status in LIVE:
        if not live:
            raise Refused(ErrorCode.job_in_use, f"The job is {job.status}.")
        _end_live(job, Status.CANCELED, JobError(ErrorCode.user_canceled), by=by)
    files = job.outputs.count()
    IdempotencyKey.objects.filter(job_id=job.pk).update(job_deleted_at=Now())
    tally.keep(job.pk)
    Job.objects.get(pk=job.pk).delete()
    transaction.on_commit(lambda: artifacts.discard(job_id), robust=True)
    log.info("Job %s deleted by %s: %s files", job_id, by, files)
    return files


def _end_live(job: Job, to: Status, error: JobError, *, by: str) -> None:
    if job.status in FINAL:
        raise Refused(ErrorCode.job_is_final, f"The job is {job.status}.")
    back = back_if_cancelled(job) if to == Status.CANCELED else None
    _end(Job.objects.filter(pk=job.pk, status__in=LIVE), [job], to, error, by=by, failures=job.failures, back=back)
    _discard_after_commit(job)


# --- the pieces all of them share -----------------------------------------------------------------------------------


def _end(
    rows: QuerySet[Job],
    jobs: Sequence[Running | Job],
    to: Status,
    error: JobError,
    *,
    by: str,
    failures: int,
    back: int | None = None,
    stages: history.Stages | None = None,
) -> list[Settled]:
    """Set locked jobs to a final status, tell it, and refund: `back` tokens each, or what the code's rule says."""
    rows.update(
        status=to,
        finished_at=Now(),
        run_after=None,
        failures=failures,
        error_code=error.code.name,
        error_message=error.message,
    )
    if not error.code.row.refund:
        back = 0
    given = F("price") if back is None else Value(back)
    history.tell_all([job.pk for job in jobs], by=by, tokens=given, stages=stages)
    fault("refund.before")
    if back is None:
        ledger.refund_many([(job.charge_id, error.code.name) for job in jobs if job.charge_id])
    elif back:
        for charge_id in filter(None, [job.charge_id for job in jobs]):
            ledger.refund(charge_id, reason=error.code.name, amount=back)
    return [Settled(job, to, error.code, job.price if back is None else back) for job in jobs]


def _discard_after_commit(job: Running | Job) -> None:
    """Whoever ends another's attempt deletes what it stored so far."""
    if job.attempt:
        transaction.on_commit(lambda: artifacts.discard(job.pk, job.attempt), robust=True)
