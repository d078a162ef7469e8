"""What the operator's policies change: prices, limits, attempts, refunds of cancels, what is done with stuck jobs."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from jobs import cleanup, lifecycle, policies, policy
from jobs.errors import Refused
from jobs.models import CleanupRun, Job, Policy
from tests import invariants
from tokens.models import Account, Transaction

pytestmark = pytest.mark.django_db


@pytest.fixture
def rule():
    """rule(price_percent=50) → a policy of the KITCHEN kind, in force at once."""

    def make(tier: str = "", **fields) -> Policy:
        row = Policy.objects.create(kind="KITCHEN", tier=tier, **fields)
        policies.forget()
        return row

    policies.forget()
    yield make
    policies.forget()


def balance(person) -> int:
    return Account.objects.get(pk=person.pk).balance


@pytest.mark.parametrize(("percent", "price"), [(50, 5), (150, 15), (0, 0), (1, 1), (1000, 100)])
def test_a_job_is_sold_at_its_policys_price(rule, submit, ann, percent, price):
    rule(price_percent=percent)
    assert submit(price=10).price == price
    assert balance(ann) == 1000 - price
    invariants.check()


def test_the_estimate_asks_the_same(rule, as_ann):
    rule(price_percent=150, cancel_refund="none")
    answer = as_ann.send("/api/jobs/estimate/", {"kind": "KITCHEN", "params": {"price": 10}}).json()
    assert (answer["cost"]["estimate"], answer["cancel_refund"]) == (15, "none")


def test_limits_and_attempts_are_those_of_the_policy(rule, submit):
    rule(run_limit=7, stall_limit=3, max_attempts=2)
    job, asked_less, asked_more = submit(), submit(max_attempts=1), submit(max_attempts=9)
    assert (job.run_limit, job.stall_limit, job.max_attempts) == (7, 3, 2)
    assert (asked_less.max_attempts, asked_more.max_attempts) == (1, 2)


def test_a_sold_job_keeps_what_it_was_sold_with(rule, submit, ann):
    line = rule(cancel_refund="none")
    job = submit(price=10)
    line.cancel_refund = "full"
    line.price_percent = 500
    line.save()
    policies.forget()
    lifecycle.claim("cpu")
    lifecycle.cancel(job.pk, by="test")
    assert balance(ann) == 990
    invariants.check()


@pytest.mark.parametrize(
    ("refund", "progress", "back"),
    [
        ("full", 0.9, 10),
        ("unused", 0.25, 8),
        ("unused", 0.7, 3),
        ("unused", 1.0, 0),
        ("unused", 0.0, 10),
        ("none", 0.1, 0),
    ],
)
def test_a_cancel_while_it_runs_gives_back_by_its_rule(rule, running, ann, as_ann, refund, progress, back):
    rule(cancel_refund=refund)
    lease = running()
    lifecycle.beat(lease, progress=progress, stage="cooking")
    job = lifecycle.cancel(lease.job_id, by="test")
    assert balance(ann) == 990 + back
    assert Transaction.objects.filter(kind="REFUND").count() == bool(back)
    assert as_ann.get(f"/api/jobs/{job.pk}/").json()["cost"] == {"estimate": 10, "charged": 10, "refunded": back}
    lifecycle.cancel(lease.job_id, by="test")
    assert balance(ann) == 990 + back
    invariants.check()


@pytest.mark.parametrize("refund", ["unused", "none"])
def test_a_waiting_job_and_a_failed_one_give_everything_back(rule, submit, running, ann, refund):
    rule(cancel_refund=refund)
    lifecycle.cancel(submit().pk, by="test")
    lifecycle.fail_by_hand(running().job_id, reason="why", by="op")
    assert balance(ann) == 1000
    invariants.check()


def test_deleting_a_live_job_gives_back_as_a_cancel_does(rule, running, ann):
    rule(cancel_refund="none")
    lease = running()
    lifecycle.delete(lease.job_id, by="test")
    assert balance(ann) == 990


def silent(lease, minutes: float = 60) -> None:
    Job.objects.filter(pk=lease.job_id).update(heartbeat_at=Now() - timedelta(minutes=minutes))


def test_when_stuck_a_policy_may_fail_at_once(rule, running, ann):
    silent(running(max_attempts=3))
    assert cleanup.cleanup_stuck_jobs(by="test").retried == 1  # automatic retry first is the default
    Job.objects.all().delete()
    rule(stale_action="fail")
    silent(running(max_attempts=3))
    run = cleanup.cleanup_stuck_jobs(by="test")
    assert (run.cleaned, run.retried, run.tokens_refunded) == (1, 0, 10)
    assert Job.objects.get().status == "FAILED"


def test_a_kind_may_be_given_longer_or_shorter_silence(rule, running):
    line = rule(timeout_seconds=7200)
    silent(running(), minutes=60)
    assert cleanup.cleanup_stuck_jobs(by="test", dry_run=True).found == 0
    line.timeout_seconds = 60
    line.save()
    policies.forget()
    assert cleanup.cleanup_stuck_jobs(by="test").found == 1
    assert CleanupRun.objects.count() == 2


def test_a_tiers_line_comes_before_its_kinds_field_by_field(rule):
    rule(price_percent=200, max_attempts=4)
    rule("4K", price_percent=300)
    assert policies.rule("KITCHEN", "4K") == policy.Rule(price_percent=300, max_attempts=4)
    assert policies.rule("KITCHEN", "1K") == policy.Rule(price_percent=200, max_attempts=4)
    assert policies.rule("RENDER") == policy.Rule()


def test_a_price_out_of_bounds_is_refused(rule, submit, ann):
    rule(price_percent=1000)
    with pytest.raises(Refused):
        submit(price=200_000)
    assert balance(ann) == 1000
