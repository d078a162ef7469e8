"""What a transition costs: the number of SQL statements of each is pinned, BEGIN and COMMIT aside."""

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from jobs import lifecycle, policies, upkeep
from jobs.errors import ErrorCode, JobError
from jobs.models import Job

pytestmark = pytest.mark.django_db
AT_ONCE = connection.vendor == "postgresql"  # a change, what tells it and what it costs are one statement


def statements(act) -> list[str]:
    with CaptureQueriesContext(connection) as seen:
        act()
    return [row["sql"] for row in seen if not row["sql"].startswith(("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE"))]


@pytest.fixture(autouse=True)
def _policies_known():
    """Read once in a few seconds, by whoever submits first."""
    policies.forget()
    policies.rule("KITCHEN")


def test_submit_charge_and_event(submit):
    assert len(statements(submit)) == (1 if AT_ONCE else 4)  # balance, ledger row, job, event


def test_a_free_submit(submit):
    assert len(statements(lambda: submit(price=0))) == (1 if AT_ONCE else 2)


def test_one_submit_in_a_few_seconds_reads_the_policies(submit):
    policies.forget()
    assert len(statements(lambda: submit(price=0))) == (2 if AT_ONCE else 3)
    assert len(statements(lambda: submit(price=0))) == (1 if AT_ONCE else 2)


def test_submit_with_a_key(submit):
    assert len(statements(lambda: submit(key="k", body_hash="h"))) == (3 if AT_ONCE else 6)


def test_claim_beat_and_succeed(submit):
    submit()
    got = []
    once = 1 if AT_ONCE else 2  # with its event
    assert len(statements(lambda: got.append(lifecycle.claim("cpu")))) == once
    lease = got[0]
    assert len(statements(lambda: lifecycle.holds(lease))) == 1
    assert len(statements(lambda: lifecycle.beat(lease, progress=0.1, stage="x"))) == 1
    assert len(statements(lambda: lifecycle.succeed(lease, [], [("x", 1.5)]))) == once


def test_an_empty_claim():
    assert len(statements(lambda: lifecycle.claim("cpu"))) == 1


def test_fail_into_retry_and_into_refund(running):
    lease = running()
    assert len(statements(lambda: lifecycle.fail(lease, JobError(ErrorCode.internal_error)))) == 3
    Job.objects.update(run_after=Now())
    again = lifecycle.claim("cpu")
    seen = statements(lambda: lifecycle.fail(again, JobError(ErrorCode.ffmpeg_error)))
    assert len(seen) == 5, seen  # row, job, event, balance, ledger row


def test_a_sweep_of_many_costs_what_a_sweep_of_few_costs(submit):
    def sweep(count):
        for _ in range(count):
            submit(price=1)
            lifecycle.claim("cpu")
        gone = JobError(ErrorCode.ffmpeg_error)
        return len(statements(lambda: lifecycle.settle(Job.objects.all(), lambda job: gone, by="test")))

    assert sweep(2) == sweep(40) == (6 if connection.vendor == "postgresql" else 5)  # it locks the accounts first


def test_a_watchmans_turn():
    assert len(statements(lambda: upkeep.take("dispatch_due"))) == 1
