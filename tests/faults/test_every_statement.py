"""F25, F21: each SQL statement and COMMIT of each lifecycle call fails in turn: it is done afterwards, or nothing is.

In this process, without workers: the failures are raised where Django hands a statement to the driver.
"""

from collections.abc import Callable
from contextlib import contextmanager
from unittest import mock

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import OperationalError, connection

from jobs import artifacts, lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.models import LIVE, Artifact, IdempotencyKey, Job, JobEvent
from tests import invariants
from tests.jobs.conftest import PARAMS
from tokens import ledger
from tokens.models import Transaction

MOST_STATEMENTS = 40

FINAL_ERROR = JobError(ErrorCode.bad_input)
PASSING_ERROR = JobError(ErrorCode.worker_lost)


def submit(owner, **options) -> Job:
    return lifecycle.submit(owner.pk, "KITCHEN", PARAMS, **options)[0]


def claimed(owner) -> lifecycle.Lease:
    submit(owner)
    lease = lifecycle.claim("cpu")
    assert lease
    return lease


def stored(lease: lifecycle.Lease) -> list[Artifact]:
    key = default_storage.save(f"jobs/{lease.job_id}/{lease.attempt}/dish.txt", ContentFile(b"dish"))
    return [
        Artifact(
            job_id=lease.job_id, attempt=lease.attempt, name="dish.txt", key=key, bytes=4, sha256="0" * 64,
            content_type="text/plain",
        )
    ]  # fmt: skip


def to_succeed(owner):
    lease = claimed(owner)
    outputs = stored(lease)
    return lambda: lifecycle.succeed(lease, outputs)


def to_fail(owner, error: JobError):
    lease = claimed(owner)
    return lambda: lifecycle.fail(lease, error)


def to_retry(owner):
    lease = claimed(owner)
    lifecycle.fail(lease, FINAL_ERROR)
    return lambda: lifecycle.retry(lease.job_id, by="test")


def to_delete(owner):
    lease = claimed(owner)
    lifecycle.succeed(lease, stored(lease))
    return lambda: lifecycle.delete(lease.job_id, by="test")


def to_grant(owner):
    return lambda: ledger.grant(owner.pk, 5, reference=f"order {owner.pk}", key="order")


CALLS: dict[str, Callable] = {  # what is done to Ann's one job; each prepares it and returns the call
    "submit": lambda ann: lambda: submit(ann, key="k", body_hash="h"),
    "claim": lambda ann: submit(ann) and (lambda: lifecycle.claim("cpu")),
    "beat": lambda ann: (lambda lease: lambda: lifecycle.beat(lease, progress=0.5, stage="half"))(claimed(ann)),
    "succeed": to_succeed,
    "fail, tried again": lambda ann: to_fail(ann, PASSING_ERROR),
    "fail for good": lambda ann: to_fail(ann, FINAL_ERROR),
    "cancel, queued": lambda ann: (lambda job: lambda: lifecycle.cancel(job.pk, by="test"))(submit(ann)),
    "cancel, running": lambda ann: (lambda lease: lambda: lifecycle.cancel(lease.job_id, by="t"))(claimed(ann)),
    "retry": to_retry,
    "delete": to_delete,
    "delete, running": lambda ann: (lambda lease: lambda: lifecycle.delete(lease.job_id, by="t"))(claimed(ann)),
    "fail by hand": lambda ann: (lambda job: lambda: lifecycle.fail_by_hand(job.pk, reason="r", by="t"))(submit(ann)),
    "grant": to_grant,
}


def state(owner) -> dict[str, list]:
    """All that a call may change of its owner's, without ids and times, which differ between two runs of the same."""
    jobs = Job.objects.filter(owner=owner)
    moving = ["status", "attempt", "round", "round_attempts", "failures", "progress", "stage", "error_code"]
    events = JobEvent.objects.filter(job__owner=owner).order_by("pk")
    booked = Transaction.objects.filter(account_id=owner.pk).order_by("pk")
    return {
        "jobs": list(jobs.values_list(*moving)),
        "events": list(events.values_list("status", "round", "attempt", "code", "tokens")),
        "ledger": list(booked.values_list("kind", "amount", "balance_after")),
        "outputs": list(Artifact.objects.filter(job__owner=owner).values_list("name", "attempt")),
        "keys": list(IdempotencyKey.objects.filter(owner=owner).values_list("key")),
    }


def put_away(owner) -> None:
    """No job of this owner is left for the next one's claim."""
    for job in Job.objects.filter(owner=owner, status__in=LIVE):
        lifecycle.cancel(job.pk, by="test")


class Failing:
    """Django's execute wrapper: the `number`-th statement is not executed but answered with `error`, once."""

    def __init__(self, number: int, error: Exception):
        self.left, self.error = number, error

    @property
    def fired(self) -> bool:
        return self.left <= 0

    def __call__(self, execute, sql, params, many, context):
        self.left -= 1
        if self.left == 0:
            raise self.error
        return execute(sql, params, many, context)


def busy() -> OperationalError:
    """What both databases say when the transaction was undone and may be done again."""
    if connection.vendor == "sqlite":
        return OperationalError("database is locked")
    from psycopg.errors import DeadlockDetected

    error = OperationalError("deadlock detected")
    error.__cause__ = DeadlockDetected("deadlock detected")
    return error


@contextmanager
def commit(*, done: bool):
    """The next COMMIT is answered with an error: after it was `done`, or instead of doing it."""
    real = connection._commit
    left = [1]

    def answer():
        if not left:
            return real()
        left.clear()
        if done:
            real()
        raise OperationalError("server closed the connection unexpectedly")

    with mock.patch.object(connection, "_commit", answer):
        yield


def clean_run(name: str, owner) -> tuple[dict, dict]:
    """The state before and after the call when nothing fails."""
    call = CALLS[name](owner)
    before = state(owner)
    call()
    after = state(owner)
    put_away(owner)
    assert before != after
    return before, after


def fail_each_statement(name: str, user, error: Callable[[], Exception]) -> list[bool]:
    """The call of that name, once for each of its statements, with that one failing. Returns which of them raised."""
    before, after = clean_run(name, user("clean"))
    outcomes = []
    for number in range(1, MOST_STATEMENTS + 1):
        owner = user(f"user{number}")
        call = CALLS[name](owner)
        failing = Failing(number, error())
        raised = False
        with connection.execute_wrapper(failing):
            try:
                call()
            except OperationalError:
                raised = True
        assert state(owner) == (before if raised else after), f"statement {number}"
        if raised:
            call()
            assert state(owner) == after, f"again after statement {number}"
        put_away(owner)
        if not failing.fired:
            artifacts.sweep()  # what a failed discard left
            invariants.check()
            return outcomes
        outcomes.append(raised)
    raise AssertionError(f"more than {MOST_STATEMENTS} statements")


@pytest.mark.parametrize("name", CALLS)
def test_a_statement_that_fails_leaves_all_or_nothing(user, name):
    assert any(fail_each_statement(name, user, lambda: OperationalError("connection lost")))


@pytest.mark.parametrize("name", ["claim", "succeed", "fail for good", "retry"])
def test_a_busy_database_is_asked_again(user, name):
    assert not any(fail_each_statement(name, user, busy))


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_commit_without_an_answer_is_done_once(user, done):
    single = {"beat"} | ({"claim"} if connection.vendor == "postgresql" else set())
    for name in set(CALLS) - single:  # a single statement the database commits by itself
        before, after = clean_run(name, user(f"{name} clean"))
        owner = user(name)
        call = CALLS[name](owner)
        raised = False
        with commit(done=done):
            try:
                call()
            except OperationalError:
                raised = True
        assert raised == (name != "submit" or not done), name  # a submit is found again by its id
        assert state(owner) == (after if done else before), name
        if not done or name in ("submit", "grant"):  # again: with its key, where it was done
            call()
        assert state(owner) == after, name
        put_away(owner)
    artifacts.sweep()
    invariants.check()


def test_outputs_are_published_again_after_a_failure_beside_another_job(user):
    """What a transaction that was undone had numbered is numbered anew: meanwhile the number may be another's."""
    first, second = claimed(user("first")), claimed(user("second"))
    outputs = stored(first)

    def no_events(execute, sql, params, many, context):  # the statement after the outputs' rows
        if "INSERT" in sql and JobEvent._meta.db_table in sql:
            raise OperationalError("database or disk is full")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(no_events), pytest.raises(OperationalError):
        lifecycle.succeed(first, outputs)
    lifecycle.succeed(second, stored(second))
    lifecycle.succeed(first, outputs)
    assert Artifact.objects.count() == 2
    invariants.check()
