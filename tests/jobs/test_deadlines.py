"""A deadline that a job came with: what has not ended by then is cancelled and refunded, once, and says why."""

import re
import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, connections
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from jobs import cleanup, dispatch, lifecycle, policies, upkeep
from jobs.errors import ErrorCode, JobError, LeaseLost
from jobs.explain import explain
from jobs.models import Job, JobEvent, Policy, Status
from jobs.tasks import dispatch_due
from tests import invariants
from tests.clients import ApiClient, codes
from tokens.models import MOST, Account, Transaction

pytestmark = pytest.mark.django_db
KITCHEN = {"kind": "KITCHEN", "params": {"price": 10}}


@pytest.fixture
def cancels_cost():
    """cancels_cost("none") → the kitchen's jobs are sold with that rule for a cancel while they run."""

    def make(rule: str) -> None:
        Policy.objects.create(kind="KITCHEN", cancel_refund=rule)
        policies.forget()

    policies.forget()
    yield make
    policies.forget()


def pass_deadlines(**which) -> None:
    Job.objects.filter(cancel_at__isnull=False, **which).update(cancel_at=Now() - timedelta(seconds=1))


def balance(person) -> int:
    return Account.objects.get(pk=person.pk).balance


# --- asked for ------------------------------------------------------------------------------------------------------


def test_it_is_asked_for_in_seconds_and_told_as_a_time(as_ann):
    job = as_ann.send("/api/jobs/", {**KITCHEN, "deadline_seconds": 300}).json()
    created, deadline = (datetime.fromisoformat(job[name]) for name in ("created_at", "deadline_at"))
    assert timedelta(seconds=290) < deadline - created < timedelta(seconds=310)
    assert as_ann.get(f"/api/jobs/{job['id']}/").json()["deadline_at"] == job["deadline_at"]
    assert as_ann.send("/api/jobs/", KITCHEN).json()["deadline_at"] is None


@pytest.mark.parametrize("wrong", [0, 4, -5, 604_801, "300", 300.5, True, None, 10**12, []])
def test_what_cannot_be_one_is_refused_and_charges_nothing(ann, as_ann, wrong):
    answer = as_ann.send("/api/jobs/", {**KITCHEN, "deadline_seconds": wrong})
    assert (answer.status_code, list(codes(answer))) == (400, ["deadline_seconds"])
    assert balance(ann) == 1000


def test_the_same_key_with_another_deadline_is_another_body(as_ann):
    for seconds, status in ((60, 202), (60, 200), (61, 422)):
        sent = as_ann.send("/api/jobs/", {**KITCHEN, "deadline_seconds": seconds}, Idempotency_Key="k")
        assert sent.status_code == status


@pytest.mark.parametrize(("own", "first"), [(10, "own"), (7200, "attempt's")])
def test_deadline_at_is_what_comes_first(as_ann, running, own, first):
    lease = running(deadline_seconds=own)
    job = Job.objects.get(pk=lease.job_id)
    told = datetime.fromisoformat(as_ann.get(f"/api/jobs/{job.pk}/").json()["deadline_at"])
    assert job.cancel_at and job.deadline_at and told == (job.cancel_at if first == "own" else job.deadline_at)
    lifecycle.fail(lease, JobError(ErrorCode.internal_error))  # it waits again: only its own is left
    told = datetime.fromisoformat(as_ann.get(f"/api/jobs/{job.pk}/").json()["deadline_at"])
    assert told == job.cancel_at
    lifecycle.cancel(job.pk, by="test")
    assert as_ann.get(f"/api/jobs/{job.pk}/").json()["deadline_at"] is None


# --- passed ---------------------------------------------------------------------------------------------------------


def test_one_that_never_ran_is_not_begun_any_more_and_comes_back_in_full(ann, as_ann, submit, cancels_cost):
    cancels_cost("none")
    job = submit(deadline_seconds=60, price=10)
    pass_deadlines()
    assert lifecycle.claim("cpu") is None  # a claim would make it one that ran
    assert not dispatch.overdue("cpu", 0) and dispatch.due("cpu", 9) == 0  # no worker is deaf for not taking it
    assert cleanup.cancel_late() == 1 and cleanup.cancel_late() == 0
    told = as_ann.get(f"/api/jobs/{job.pk}/").json()
    assert (told["status"], told["error"]["code"]) == ("CANCELED", "deadline_passed")
    assert told["error"]["message"] == "It had not ended 60 s after it was sold." and told["error"]["refunded"]
    assert told["cost"] == {"estimate": 10, "charged": 10, "refunded": 10} and balance(ann) == 1000
    event = JobEvent.objects.get(job=job, status=Status.CANCELED)
    assert (event.by, event.code, event.tokens) == ("deadline", "deadline_passed", 10)
    invariants.check()


@pytest.mark.parametrize(("rule", "back"), [("full", 10), ("unused", 4), ("none", 0)])
def test_one_that_runs_comes_back_as_a_cancel_would(ann, running, cancels_cost, rule, back):
    cancels_cost(rule)
    lease = running(deadline_seconds=60, price=10)
    lifecycle.beat(lease, progress=0.6, stage="cooking")
    pass_deadlines()
    assert cleanup.cancel_late() == 1
    with pytest.raises(LeaseLost):
        lifecycle.beat(lease, progress=0.7, stage="cooking")
    with pytest.raises(LeaseLost):
        lifecycle.succeed(lease, [])
    assert balance(ann) == 990 + back
    assert JobEvent.objects.get(job=lease.job_id, status=Status.CANCELED).tokens == back
    invariants.check()


def test_it_says_why_in_words(running, submit):
    job = submit(deadline_seconds=60)
    assert "It is cancelled if it has not ended in 60 s: the deadline it was submitted with." in [
        re.sub(r"5\d s", "60 s", sentence) for sentence in explain(job, for_operator=False).now
    ]
    pass_deadlines()
    cleanup.cancel_late()
    told = explain(Job.objects.get(pk=job.pk), for_operator=False)
    assert told.now[0] == "It had not ended 60 s after it was sold."
    assert (told.timeline[-1].title, told.timeline[-1].by) == ("Cancelled", "its deadline")
    assert told.money[-1].detail == ErrorCode.deadline_passed.row.sentence


def test_a_host_whose_clock_is_behind_cancels_nothing_early(submit, monkeypatch):
    """The clock that tells when a deadline has passed sets it, too: the database's."""
    monkeypatch.setattr(timezone, "now", lambda: datetime.now(UTC) - timedelta(minutes=10))
    job = submit(deadline_seconds=300)
    assert not lifecycle.late().exists() and lifecycle.claim("cpu").job_id == job.pk
    assert timedelta(seconds=300) <= job.cancel_at - job.created_at < timedelta(seconds=310)


def test_what_is_in_time_or_has_ended_is_left_alone(running, submit):
    lease = running(deadline_seconds=60)
    lifecycle.succeed(lease, [])
    submit(deadline_seconds=60)
    submit()
    pass_deadlines(pk=lease.job_id)
    before = list(Job.objects.order_by("pk").values())
    assert cleanup.cancel_late() == 0 and not lifecycle.cancel_late(lease.job_id)
    assert list(Job.objects.order_by("pk").values()) == before


def test_a_retry_has_as_long_again(ann, running):
    lease = running(deadline_seconds=60, max_attempts=1)
    lifecycle.fail(lease, JobError(ErrorCode.bad_input))
    pass_deadlines()
    lifecycle.retry(lease.job_id, by="test")
    assert cleanup.cancel_late() == 0
    assert Job.objects.filter(
        cancel_at__gt=Now() + timedelta(seconds=50), cancel_at__lte=F("run_after") + timedelta(seconds=61)
    )
    pass_deadlines()
    assert cleanup.cancel_late() == 1 and balance(ann) == 1000
    invariants.check()


@pytest.mark.django_db(transaction=True)
def test_one_that_cannot_be_refunded_stops_no_other(ann, bob, submit):
    rich, other = submit(owner=bob, deadline_seconds=5), submit(deadline_seconds=5)
    pass_deadlines()
    Account.objects.filter(pk=bob.pk).update(balance=MOST)  # its refund is refused
    assert cleanup.cancel_late() == 1
    assert Job.objects.get(pk=rich.pk).status == Status.QUEUED
    assert Job.objects.get(pk=other.pk).status == Status.CANCELED and balance(ann) == 1000


def test_the_watchman_that_sends_nudges_cancels(submit):
    submit(deadline_seconds=5)
    pass_deadlines()
    upkeep.install()
    dispatch_due()
    assert Job.objects.get().status == Status.CANCELED


def test_the_late_are_found_by_an_index(submit):
    submit(deadline_seconds=5)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
    plan = lifecycle.late().order_by("cancel_at").explain()
    assert "job_late" in plan, plan


@pytest.mark.django_db(transaction=True)
def test_sweeps_and_their_owners_cancels_at_once_refund_once(ann, submit):
    jobs = [submit(deadline_seconds=5, price=3) for _ in range(20)]
    pass_deadlines()
    gate, cancelled, browser = threading.Barrier(3), [], ApiClient(ann)

    def act(do):
        gate.wait()
        try:
            cancelled.append(do())
        finally:
            connections.close_all()

    def by_hand() -> int:
        return sum(browser.send(f"/api/jobs/{job.pk}/cancel/").status_code == 200 for job in jobs[::-1])

    threads = [threading.Thread(target=act, args=[do]) for do in (cleanup.cancel_late, cleanup.cancel_late, by_hand)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cleanup.cancel_late()
    assert len(cancelled) == 3 and not Job.objects.exclude(status=Status.CANCELED).exists()
    assert balance(ann) == 1000 and Transaction.objects.filter(kind="REFUND").count() == 20
    assert JobEvent.objects.filter(status=Status.CANCELED).count() == 20
    invariants.check()
