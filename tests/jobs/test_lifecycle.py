"""Transitions, one by one: status, money and history move together or not at all."""

import contextlib
import threading
import uuid

import pytest
from django.db import OperationalError, connection, connections
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from jobs import lifecycle, sale
from jobs.errors import ErrorCode, JobError, LeaseLost, Refused
from jobs.models import Artifact, Job, JobEvent, Status
from tests import invariants
from tokens.models import Account

pytestmark = pytest.mark.django_db


def balance(person) -> int:
    return Account.objects.get(pk=person.pk).balance


def test_submit_charges_and_queues(ann, submit):
    job = submit(price=10)
    assert (job.status, balance(ann)) == (Status.QUEUED, 990)
    assert [event.tokens for event in job.events.all()] == [-10]
    invariants.check()


def test_submit_without_money_writes_nothing(ann, submit):
    with pytest.raises(Refused) as refused:
        submit(price=1001 - 1) and submit(price=1)
    assert refused.value.code is ErrorCode.insufficient_tokens
    assert Job.objects.count() == 1
    invariants.check()


def test_free_jobs_book_nothing(ann, submit):
    job = submit(price=0)
    lifecycle.cancel(job.pk, by="test")
    assert balance(ann) == 1000
    invariants.check()


def test_the_same_key_answers_the_same_job(ann, submit):
    first = submit(key="k1", body_hash="a")
    assert submit(key="k1", body_hash="a").pk == first.pk
    assert balance(ann) == 990
    with pytest.raises(Refused) as refused:
        submit(key="k1", body_hash="b")
    assert refused.value.code is ErrorCode.idempotency_key_reused


@pytest.mark.django_db(transaction=True)
def test_a_submit_that_meets_a_busy_database_late_is_done_again(ann, submit, monkeypatch):
    busy = OperationalError("database is locked")
    busy.__cause__ = Exception()
    busy.__cause__.sqlstate = "40P01"  # a deadlock
    answers = iter([busy])
    plain = sale.fault

    def once(point):
        if point == "submit.before_commit" and (error := next(answers, None)):
            raise error
        plain(point)

    monkeypatch.setattr(sale, "fault", once)
    job = submit(key="k1")
    assert (Job.objects.get(), job.created_at, balance(ann)) == (job, Job.objects.get().created_at, 990)
    invariants.check()


def test_a_key_is_its_owners_alone(bob, submit):
    first = submit(key="k1", body_hash="a")
    assert submit(bob, key="k1", body_hash="a").pk != first.pk


def test_claim_takes_the_highest_priority_then_the_oldest(submit):
    low, high, next_low = submit(priority=0), submit(priority=5), submit(priority=0)
    assert [lifecycle.claim("cpu").job_id for _ in range(3)] == [high.pk, low.pk, next_low.pk]
    assert lifecycle.claim("cpu") is None


def test_claim_waits_for_the_due_time(submit, running):
    lease = running()
    lifecycle.fail(lease, JobError(ErrorCode.internal_error))
    assert lifecycle.claim("cpu") is None
    Job.objects.update(run_after=Now())
    assert lifecycle.claim("cpu").attempt == 2


def test_claim_uses_its_index(submit):
    submit()
    explain = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN "
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(explain + lifecycle.claim_sql(), [None, "cpu", "cpu"])
        plan = "\n".join(str(row) for row in cursor.fetchall())
    assert "job_due" in plan, plan
    assert "TEMP B-TREE" not in plan and "Sort" not in plan, plan  # ordered by the index itself


@pytest.mark.parametrize(
    ("code", "failures", "becomes", "left"),  # 1,000 granted, the job costs 10, max_attempts 3
    [
        (ErrorCode.worker_timeout, 0, Status.RETRY, 990),  # budget left: the charge stays
        (ErrorCode.worker_timeout, 1, Status.RETRY, 990),
        (ErrorCode.worker_timeout, 2, Status.FAILED, 1000),  # dead letter: refunded
        (ErrorCode.ffmpeg_error, 0, Status.FAILED, 1000),  # final at once
        (ErrorCode.timeout, 0, Status.FAILED, 1000),
        (ErrorCode.worker_shutdown, 2, Status.RETRY, 990),  # handed back: spends nothing
    ],
)
def test_fail_retries_or_refunds(ann, running, code, failures, becomes, left):
    lease = running(failures=failures)
    lifecycle.fail(lease, JobError(code))
    job = Job.objects.get(pk=lease.job_id)
    assert (job.status, balance(ann)) == (becomes, left)
    assert job.error_code == code.name
    invariants.check()


def test_postponed_for_a_service_that_is_down_spends_nothing_and_waits(ann, running):
    lease = running(max_attempts=1)
    lifecycle.fail(lease, JobError(ErrorCode.provider_error, "RunPod is left alone.", postpone=600.0))
    job = Job.objects.get()
    assert (job.status, job.failures, balance(ann)) == (Status.RETRY, 0, 990)
    assert 590 < (job.run_after - timezone.now()).total_seconds() <= 601
    assert lifecycle.claim(job.queue) is None
    invariants.check()


def test_a_job_with_one_attempt_is_not_handed_back(ann, running):
    lease = running(max_attempts=1)
    lifecycle.fail(lease, JobError(ErrorCode.worker_shutdown))
    assert (Job.objects.get().status, balance(ann)) == (Status.FAILED, 1000)
    invariants.check()


def test_no_round_has_more_than_twenty_attempts(ann, submit):
    submit()
    for _ in range(20):
        lease = lifecycle.claim("cpu")
        lifecycle.fail(lease, JobError(ErrorCode.worker_shutdown))
    assert (Job.objects.get().status, balance(ann)) == (Status.FAILED, 1000)
    invariants.check()


def artifact(lease, name="dish.txt") -> Artifact:
    return Artifact(
        job_id=lease.job_id,
        attempt=lease.attempt,
        name=name,
        key=f"jobs/{lease.job_id}/{lease.attempt}/{name}",
        bytes=1,
        sha256="0" * 64,
        content_type="text/plain",
    )


def test_succeed_publishes_and_keeps_the_charge(ann, running):
    lease = running()
    lifecycle.succeed(lease, [artifact(lease)])
    job = Job.objects.get()
    assert (job.status, job.progress, balance(ann)) == (Status.SUCCEEDED, 1.0, 990)
    assert job.outputs.count() == 1
    invariants.check(files=False)


def write_all(lease) -> list:
    """Every write that a run can make."""
    return [
        lambda: lifecycle.beat(lease, progress=0.5, stage="late"),
        lambda: lifecycle.succeed(lease, [artifact(lease)]),
        lambda: lifecycle.fail(lease, JobError(ErrorCode.internal_error)),
    ]


def test_an_older_attempt_can_write_nothing(ann, running):
    zombie = running()
    lifecycle.fail(zombie, JobError(ErrorCode.worker_timeout))
    Job.objects.update(run_after=Now())
    assert lifecycle.claim("cpu").attempt == 2
    for write in write_all(zombie):
        with pytest.raises(LeaseLost):
            write()
    job = Job.objects.get()
    assert (job.status, job.attempt, job.stage) == (Status.RUNNING, 2, "claimed")
    assert job.outputs.count() == 0
    invariants.check()


def test_a_cancelled_attempt_can_write_nothing(ann, running):
    lease = running()
    lifecycle.cancel(lease.job_id, by="test")
    for write in write_all(lease):
        with pytest.raises(LeaseLost):
            write()
    assert (Job.objects.get().status, balance(ann)) == (Status.CANCELED, 1000)
    invariants.check()


def test_a_second_cancel_answers_the_same(ann, submit):
    job = submit()
    assert lifecycle.cancel(job.pk, by="test").status == Status.CANCELED
    assert lifecycle.cancel(job.pk, by="test").status == Status.CANCELED
    assert balance(ann) == 1000
    invariants.check()


def test_what_succeeded_cannot_be_cancelled_or_retried(ann, running):
    lease = running()
    lifecycle.succeed(lease, [])
    for act, code in ((lifecycle.cancel, ErrorCode.job_is_final), (lifecycle.retry, ErrorCode.job_not_failed)):
        with pytest.raises(Refused) as refused:
            act(lease.job_id, by="test")
        assert refused.value.code is code
    assert balance(ann) == 990


def test_retry_opens_a_charged_round_with_a_full_budget(ann, running):
    lease = running(failures=2)
    lifecycle.fail(lease, JobError(ErrorCode.internal_error))
    job = lifecycle.retry(lease.job_id, by="test")
    assert (job.status, job.round, job.failures, job.error_code, balance(ann)) == (Status.QUEUED, 2, 0, "", 990)
    assert lifecycle.claim("cpu").attempt == 2  # the fencing token never goes back
    invariants.check()


def test_retry_without_money_changes_nothing(ann, running, submit):
    lease = running(max_attempts=1)
    lifecycle.fail(lease, JobError(ErrorCode.internal_error))
    submit(price=1000)
    with pytest.raises(Refused) as refused:
        lifecycle.retry(lease.job_id, by="test")
    assert refused.value.code is ErrorCode.insufficient_tokens
    assert Job.objects.get(pk=lease.job_id).status == Status.FAILED
    invariants.check()


def test_delete_cancels_a_live_job_and_keeps_its_ledger(ann, running):
    lease = running()
    lifecycle.delete(lease.job_id, by="test")
    assert not Job.objects.exists() and not JobEvent.objects.exists()
    assert balance(ann) == 1000
    assert ann.account.transactions.filter(reference=f"job:{lease.job_id}:1").count() == 2
    with pytest.raises(LeaseLost):
        lifecycle.succeed(lease, [artifact(lease)])
    invariants.check()


def test_fail_by_hand_refunds(ann, submit):
    job = submit()
    job = lifecycle.fail_by_hand(job.pk, reason="Gone wrong.", by="op")
    assert (job.error_code, job.error_message, balance(ann)) == ("manual_intervention", "Gone wrong.", 1000)
    invariants.check()


def test_an_unknown_job_is_not_found():
    with pytest.raises(Refused) as refused:
        lifecycle.cancel(uuid.uuid4(), by="test")
    assert refused.value.code is ErrorCode.not_found


def test_settle_takes_a_batch_in_one_transaction(ann, submit, django_assert_max_num_queries):
    for _ in range(20):
        submit()
        lifecycle.claim("cpu")
    gone = JobError(ErrorCode.ffmpeg_error)
    with django_assert_max_num_queries(12):
        settled = lifecycle.settle(Job.objects.filter(~Q(pk=None)), lambda job: gone, by="test")
    assert len(settled) == 20 and balance(ann) == 1000
    invariants.check()


@pytest.mark.django_db(transaction=True)
def test_eight_claim_at_once_and_nobody_gets_the_same(submit):
    for _ in range(40):
        submit(price=1)
    got, lock = [], threading.Lock()

    def worker():
        try:
            while lease := lifecycle.claim("cpu"):
                with lock:
                    got.append(lease.job_id)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=worker) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len(set(got)) == 40


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rival", ["cancel", "settle", "delete"])
def test_success_and_its_rivals_at_once_have_one_winner(ann, running, rival):
    leases = [running() for _ in range(15)]
    gate = threading.Barrier(2)

    def act(what):
        gate.wait()
        try:
            for lease in leases:
                with contextlib.suppress(LeaseLost, Refused):
                    what(lease)
        finally:
            connections.close_all()

    rivals = {
        "cancel": lambda lease: lifecycle.cancel(lease.job_id, by="test"),
        "delete": lambda lease: lifecycle.delete(lease.job_id, by="test"),
        "settle": lambda lease: lifecycle.settle(
            Job.objects.filter(pk=lease.job_id), lambda job: JobError(ErrorCode.ffmpeg_error), by="test"
        ),
    }
    threads = [
        threading.Thread(target=act, args=[lambda lease: lifecycle.succeed(lease, [])]),
        threading.Thread(target=act, args=[rivals[rival]]),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not Job.objects.exclude(status__in=["SUCCEEDED", "CANCELED", "FAILED"]).exists()
    invariants.check()
