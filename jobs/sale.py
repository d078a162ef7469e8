"""Selling a job, or a further round of it: its price is charged, its row and event written, a worker nudged; once per
Idempotency-Key."""

import logging
import uuid
from datetime import timedelta
from functools import cache
from typing import Any

from django.db import Error, IntegrityError, connection, connections
from django.db.models.functions import Now

from tokens import ledger

from . import dispatch, history, idempotency, intake, kinds, policies, policy
from .errors import ErrorCode, Refused
from .faults import fault
from .inputs import resolve, sizes
from .models import IdempotencyKey, Job, JobInput, Status
from .models.job import uuid7
from .transactions import again_if_busy, write

log = logging.getLogger(__name__)


def submit(
    owner_id: int,
    kind_name: str,
    params: dict[str, Any],
    *,
    key: str | None = None,
    body_hash: str = "",
    priority: int = 0,
    max_attempts: int | None = None,
    metadata: dict[str, Any] | None = None,
    deadline_seconds: int | None = None,
) -> tuple[Job, bool]:
    """Sell one job of validated `params`: charge its price, queue it, nudge a worker after the commit.

    Returns (job, True), or (the earlier job, False) when `key` already made one from the same `body_hash`.
    Price, limits, attempts and what a cancel gives back are as the kind's policy says now; the job keeps them.
    With `deadline_seconds` it is cancelled if it has not ended by then, and so is each later round.
    Raises Refused (input_not_found, bad_input, insufficient_tokens, idempotency_key_reused, or invalid_request for a
    price out of bounds) with nothing written.
    A commit whose answer got lost is looked up by the id chosen here.
    """
    if key and (earlier := made_by(owner_id, key, body_hash)):
        return earlier, False
    kind = kinds.get(kind_name)
    tier = kind.tier(params)
    rule = policies.rule(kind.name, tier)
    limits = policy.limits(kind.limits_for(params), rule)
    inputs = resolve(owner_id, kind, params)
    job = Job(
        id=uuid7(),
        owner_id=owner_id,
        kind=kind.name,
        tier=tier,
        queue=kind.queue,
        priority=priority,
        params=params,
        metadata=metadata or {},
        max_attempts=policy.attempts(max_attempts, limits, rule),
        run_limit=limits.run,
        stall_limit=limits.stall,
        price=intake.price_of(kind, params, sizes(inputs)),
        cancel_refund=rule.cancel_refund,
        deadline_seconds=deadline_seconds,
    )
    try:
        if connection.vendor == "postgresql" and not (inputs or key or deadline_seconds):
            _sell_alone(job)
        else:
            _sell(job, inputs, key, body_hash)
    except ledger.InsufficientTokens as error:
        raise Refused(ErrorCode.insufficient_tokens, f"This job costs {job.price} tokens.") from error
    except IntegrityError:  # the same key at the same time, or an input deleted at the same time
        if key and (earlier := made_by(owner_id, key, body_hash)):
            return earlier, False
        resolve(owner_id, kind, params)
        raise
    except Error:  # in doubt: the commit may have been done
        connection.close_if_unusable_or_obsolete()
        if not Job.objects.filter(pk=job.pk).exists():
            raise
        dispatch.nudge(job.queue)
    if deadline_seconds:
        job.__dict__.pop("cancel_at")  # read when asked for, as its other times
    log.info("Job %s submitted: %s for user %s, %s tokens", job.pk, job.kind, owner_id, job.price)
    return job, True


@again_if_busy
def _sell_alone(job: Job) -> None:
    """A job with nothing beside its row: PostgreSQL's one statement needs no BEGIN and no COMMIT."""
    _begin(job)
    dispatch.nudge(job.queue)


@write
def _sell(job: Job, inputs: list[JobInput], key: str | None, body_hash: str) -> None:
    _begin(job)
    if job.deadline_seconds:  # by the clock that will tell when it has passed
        Job.objects.filter(pk=job.pk).update(cancel_at=Now() + timedelta(seconds=job.deadline_seconds))
    if inputs:
        for needed in inputs:
            needed.pk, needed.job = None, job  # no number of a try that was undone: on SQLite it may be another's now
        JobInput.objects.bulk_create(inputs)
    if key:
        IdempotencyKey.objects.create(owner_id=job.owner_id, key=key, body_hash=body_hash, job_id=job.pk)
    fault("submit.before_commit")
    dispatch.nudge(job.queue)


STORED = [field for field in Job._meta.local_concrete_fields if not field.has_db_default()]  # what a new row is given
DEFAULTED = [field.attname for field in Job._meta.local_concrete_fields if field.has_db_default()]
INSERT_JOB = f"INSERT INTO jobs_job ({', '.join(field.column for field in STORED)})"
CHARGE_AND_BEGIN = """
WITH {charged}, job AS ({insert} SELECT {values} FROM charged RETURNING *),
told AS ({tell} SELECT id, round, attempt, status, '', '', %s, -price, NULL FROM job)
SELECT charge_id FROM job"""
NO_CHARGE = "charged AS (SELECT NULL::bigint AS id)"


def _begin(job: Job) -> None:
    """Charge, and write the job's row and its first event: one statement on PostgreSQL. Its times are read when asked
    for. InsufficientTokens with nothing written."""
    begin = _begin_at_once if connection.vendor == "postgresql" else _begin_in_turn
    begin(job, f"job:{job.pk}:1", f"user:{job.owner_id}")
    job._state.adding = False
    for name in DEFAULTED:
        job.__dict__.pop(name, None)  # gone already where a try before was undone


def _begin_at_once(job: Job, reference: str, by: str) -> None:
    charged, params = NO_CHARGE, []
    if job.price:
        charged, params = ledger.charging(job.owner_id, job.price, reference=reference)
    with connection.cursor() as cursor:
        cursor.execute(_charge_and_begin(charged), [*params, *_row(job, but="charge"), by])
        begun = cursor.fetchone()
    if begun is None:
        raise ledger.InsufficientTokens(job.owner_id, job.price)
    (job.charge_id,) = begun


@cache
def _charge_and_begin(charged: str) -> str:
    """The statement; each value with its type, which a SELECT does not take from the column that it goes to."""
    types = {field.name: str(field.db_type(connection)).partition("(")[0] for field in STORED}
    values = ("charged.id" if name == "charge" else f"CAST(%s AS {sql_type})" for name, sql_type in types.items())
    return CHARGE_AND_BEGIN.format(charged=charged, insert=INSERT_JOB, values=", ".join(values), tell=history.INSERT)


def _begin_in_turn(job: Job, reference: str, by: str) -> None:
    if job.price:
        job.charge = ledger.charge(job.owner_id, job.price, reference=reference)
    with connection.cursor() as cursor:
        cursor.execute(f"{INSERT_JOB} VALUES ({', '.join(['%s'] * len(STORED))})", _row(job))
    history.tell(job.pk, job.round, job.attempt, Status(job.status), by=by, tokens=-job.price)


def _row(job: Job, but: str = "") -> list[Any]:
    """What a new job's row is given, column by column."""
    database = connections[connection.alias]  # not looked up anew for each of thirty columns
    return [field.get_db_prep_save(getattr(job, field.attname), database) for field in STORED if field.name != but]


@write
def adopt(job: Job, *, by: str) -> bool:
    """Keep an ended job of another system, unsaved and free of charge. False if its id is known already."""
    if Job.objects.filter(pk=job.pk).exists():
        return False
    job.save(force_insert=True)
    history.tell(job.pk, 1, 0, Status(job.status), by=by, message="Imported.")
    return True


def made_by(owner_id: int, key: str, body_hash: str) -> Job | None:
    """The job that this key made, if any. Refused if it came with another body, or the job was deleted since."""
    gone = "The job that this Idempotency-Key made was deleted."
    return idempotency.made_by(Job, owner_id, key, body_hash, gone=gone)


def retry(job_id: uuid.UUID, *, by: str, key: tuple[int, str] | None = None) -> Job:
    """Open a new round of a FAILED job at the price it was sold at: charged again, full budget, queued.

    `key` is a user's id and their Idempotency-Key: who comes again with it gets the job, and no other round.
    Refused with job_not_failed, insufficient_tokens or idempotency_key_reused, nothing written.
    """
    try:
        return _retry(job_id, by, key)
    except IntegrityError as error:
        if key is None:
            raise
        raise Refused(ErrorCode.idempotency_key_reused) from error  # at the same time, for something else


@write
def _retry(job_id: uuid.UUID, by: str, key: tuple[int, str] | None) -> Job:
    job = locked(job_id)
    asked = f"retry:{job_id}"
    if key and made_by(*key, asked):
        return job
    if job.status != Status.FAILED:
        raise Refused(ErrorCode.job_not_failed, f"The job is {job.status}.")
    for needed in job.inputs.all():
        if needed.artifact_id is None and needed.upload_id is None:
            raise Refused(ErrorCode.input_gone, f"{needed.reference} was removed; submit a new job.")
    number = job.round + 1
    charge = None
    if job.price:
        try:
            charge = ledger.charge(job.owner_id, job.price, reference=f"job:{job.pk}:{number}")
        except ledger.InsufficientTokens as error:
            raise Refused(ErrorCode.insufficient_tokens, f"This job costs {job.price} tokens.") from error
    Job.objects.filter(pk=job.pk, status=Status.FAILED).update(
        status=Status.QUEUED,
        round=number,
        round_attempts=0,
        failures=0,
        charge=charge,
        run_after=Now(),
        cancel_at=Now() + timedelta(seconds=job.deadline_seconds) if job.deadline_seconds else None,
        finished_at=None,
        progress=0.0,
        stage="",
        error_code="",
        error_message="",
    )
    history.tell(job.pk, number, job.attempt, Status.QUEUED, by=by, tokens=-job.price, message="Retried.")
    if key:
        IdempotencyKey.objects.create(owner_id=key[0], key=key[1], body_hash=asked, job_id=job.pk)
    dispatch.nudge(job.queue)
    log.info("Job %s retried by %s: round %s", job.pk, by, number)
    return Job.objects.get(pk=job.pk)


def locked(job_id: uuid.UUID) -> Job:
    """The job's row, locked for this transaction (SQLite's IMMEDIATE transaction locks the whole database)."""
    try:
        return Job.objects.select_for_update().get(pk=job_id)
    except Job.DoesNotExist as error:
        raise Refused(ErrorCode.not_found) from error
