"""F18, F21, F22 on PostgreSQL: connections cut, COMMITs done without an answer, a row locked by a stranger."""

from contextlib import contextmanager
from datetime import datetime

import psycopg
import pytest
from django.db import OperationalError, connection

from jobs import lifecycle
from jobs.models import JobEvent, Status, Tick
from tests import invariants
from tests.faults.pg_proxy import Proxy
from tests.faults.rig import cook, database_url, final, fresh, is_running, until
from tests.jobs.conftest import PARAMS
from tokens import ledger
from tokens.models import Transaction


@pytest.fixture
def proxy(transactional_db):
    with Proxy() as made:
        yield made


@contextmanager
def through(proxy: Proxy):
    """This process's connection goes through the proxy."""
    known = connection.settings_dict
    before = known["HOST"], known["PORT"]
    connection.close()
    known["HOST"], known["PORT"] = proxy.host, proxy.port
    try:
        yield
    finally:
        connection.close()
        known["HOST"], known["PORT"] = before


@contextmanager
def stranger():
    """Another client in a transaction of its own, which is undone."""
    with psycopg.connect(**connection.get_connection_params() | {"options": ""}) as other:
        other.autocommit = False
        yield other
        other.rollback()


def cut_all() -> int:
    """End all connections but this one, as a restart of the server does. Returns how many there were."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return cursor.fetchone()[0]


def test_watchmen_go_on_after_their_connection_was_cut(platform):
    """The upkeep worker keeps its connection between turns; without a look at it before each they failed for ever."""
    platform.up()
    often = ["dispatch_due", "deliver_webhooks"]  # every five seconds

    def turns() -> dict[str, datetime]:
        return dict(Tick.objects.filter(name__in=often, seconds__isnull=False).values_list("name", "ran_at"))

    until(lambda: len(turns()) == len(often), seconds=40)
    before = turns()
    assert cut_all() >= 2
    until(lambda: all(ran_at > before[name] for name, ran_at in turns().items()), seconds=40)


def test_connections_of_workers_cut_mid_run(platform, ann):
    """The run goes on and is settled over a new connection; the next task has a live one."""
    platform.up()
    job = cook(ann, seconds=2)
    until(is_running(job), seconds=20)
    assert cut_all() >= 2
    ended = final(job, cook(ann), seconds=60)
    assert [(row.status, row.attempt) for row in ended] == [(Status.SUCCEEDED, 1)] * 2
    later = [cook(ann) for _ in range(4)]
    assert {row.status for row in final(*later, seconds=60)} == {Status.SUCCEEDED}


def test_a_submit_whose_commit_got_no_answer_is_found_again(proxy, ann):
    with through(proxy):
        proxy.lose_commit_after("CHARGE")
        job, created = lifecycle.submit(ann.pk, "KITCHEN", PARAMS, key="k", body_hash="h")
        assert proxy.lost.is_set()
        assert created
        assert lifecycle.submit(ann.pk, "KITCHEN", PARAMS, key="k", body_hash="h") == (job, False)
    assert Transaction.objects.filter(kind="CHARGE").count() == 1
    invariants.check()


def test_a_grant_whose_commit_got_no_answer_is_booked_once(proxy, ann):
    with through(proxy):
        proxy.lose_commit_after("order 7")
        with pytest.raises(OperationalError):
            ledger.grant(ann.pk, 5, reference="order 7", key="order 7")
        assert proxy.lost.is_set()
        ledger.grant(ann.pk, 5, reference="order 7", key="order 7")
    assert Transaction.objects.filter(reference="order 7").count() == 1
    invariants.check()


def test_a_worker_whose_commit_got_no_answer_settles_once(platform, proxy, ann):
    platform.env["JOB_HEARTBEAT_TIMEOUT"] = "60"  # seconds: no watchman helps
    platform.broker()
    platform.worker(slots=1, DATABASE_URL=database_url(host=proxy.host, port=proxy.port))

    def run_once(lost: str, *, lose=proxy.lose_commit_after, **params) -> tuple[str, int]:
        lose(lost)
        (done,) = final(cook(ann, **params), seconds=40)
        assert proxy.lost.is_set(), lost
        assert JobEvent.objects.filter(job=done, status=done.status).count() == 1
        return done.status, done.attempt

    claim = "status = 'RUNNING', attempt = attempt + 1"
    assert run_once(claim, lose=proxy.lose_answer_to) == (
        Status.SUCCEEDED,
        2,
    )  # handed back, claimed again
    assert run_once("'SUCCEEDED'") == (Status.SUCCEEDED, 1)
    assert run_once("REFUND", fail_times=1, code="bad_input") == (Status.FAILED, 1)
    platform.beat()
    assert run_once("RETRY", fail_times=1, code="storage_error") == (Status.SUCCEEDED, 2)


def test_a_locked_account_delays_only_its_owner(platform, ann, bob):
    """A refund gets its lock timeout and is booked later; meanwhile Bob's jobs run on the other slot."""
    platform.env["JOB_HEARTBEAT_TIMEOUT"] = "60"  # seconds: longer than the lock is held
    platform.broker()
    delayed = cook(ann, fail_times=1, code="bad_input", max_attempts=1)
    with stranger() as other:
        other.execute("SELECT 1 FROM tokens_account WHERE user_id = %s FOR UPDATE", [ann.pk])
        platform.worker()
        platform.beat()
        until(is_running(delayed), seconds=20)
        until(lambda: "no answer to its settling" in platform.log("worker"), seconds=30)
        assert final(cook(bob), seconds=30)[0].status == Status.SUCCEEDED
        assert fresh(delayed).status == Status.RUNNING
    (done,) = final(delayed, seconds=30)
    assert (done.status, done.error_code, done.attempt) == (Status.FAILED, "bad_input", 1)
