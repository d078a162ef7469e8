"""F23, F24 on SQLite: another process holds the write lock; the disk takes nothing more."""

import resource
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone

from jobs import keys
from jobs.models import Job, Status
from tests import invariants
from tests.faults.rig import cook, final, fresh, is_running, until
from tokens.models import Transaction

ORDER = {"kind": "KITCHEN", "params": {}}


@contextmanager
def write_lock():
    """Another client's transaction holds the database's only write lock."""
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


@contextmanager
def pragma(setting: str):
    """A setting of this process's connection, until it is closed at the end or by the API after an error."""
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA {setting}")
    try:
        yield
    finally:
        connection.close()


@pytest.fixture
def api(ann):
    """Ann at the API of this process."""
    _, secret = keys.issue(ann, "test")
    client = Client(headers={"authorization": f"Bearer {secret}"}, raise_request_exception=False)
    return lambda: client.post("/api/jobs/", ORDER, content_type="application/json")


def fill() -> None:
    """Use up the pages that were free; `empty` gives them back."""
    with connection.cursor() as cursor, pytest.raises(OperationalError, match="full"):
        while True:
            cursor.execute("INSERT INTO django_session VALUES (hex(randomblob(8)), hex(randomblob(500)), 0)")


def empty() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_session")


def refused_for_now(answer) -> bool:
    return answer.status_code == 503 and int(answer["Retry-After"]) >= 1 and answer.json()["retryable"]


def test_a_short_lock_is_not_noticed(platform, ann):
    """Shorter than the busy timeout of 5 seconds: a submit waits, a beat comes late, and that is all."""
    platform.env["JOB_HEARTBEAT_TIMEOUT"] = "20"  # seconds: longer than the lock, as in real life
    platform.broker()
    platform.worker(slots=1)
    platform.web()
    _, key = keys.issue(ann, "test")
    job = cook(ann, seconds=1)
    until(is_running(job), seconds=20)
    with ThreadPoolExecutor() as background:
        with write_lock():
            submit = background.submit(platform.get, "/api/jobs/", key, "POST", ORDER, timeout=20)
            until(lambda: timezone.now() - fresh(job).heartbeat_at > timedelta(seconds=2))
            assert not submit.done()
        assert submit.result()[0] == 202
    assert {(row.status, row.attempt) for row in final(*Job.objects.all())} == {(Status.SUCCEEDED, 1)}


def test_readers_go_on_while_another_writes(ann):
    """A key's use is written down by the next request that may write."""
    row, secret = keys.issue(ann, "test")
    client = Client(headers={"authorization": f"Bearer {secret}"}, raise_request_exception=False)
    with write_lock():
        assert client.get("/api/jobs/").status_code == 200
        row.refresh_from_db()
        assert row.last_used_at is None
    assert client.get("/api/jobs/").status_code == 200
    row.refresh_from_db()
    assert row.last_used_at
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA busy_timeout").fetchone() == (5000,)


def test_a_long_lock_is_answered_with_503_and_loses_no_job(platform, ann, api):
    platform.up()
    running, waiting = cook(ann, seconds=1), cook(ann)
    until(is_running(running), seconds=20)
    with write_lock():
        with pragma("busy_timeout = 50"):
            assert refused_for_now(api())
        assert Job.objects.count() == 2
        until(lambda: "could not reach the database" in platform.log("worker"), seconds=30)
    assert api().status_code == 202
    assert {row.status for row in final(running, waiting, *Job.objects.all())} == {Status.SUCCEEDED}


def test_a_full_database_refuses_a_submit_whole(ann, api):
    with pragma("max_page_count = 1"):  # SQLite makes it what there is
        fill()
        answers = [api()]
        while answers[-1].status_code == 202 and len(answers) < 40:  # the last pages have a little room
            answers.append(api())
    assert refused_for_now(answers[-1])
    assert Job.objects.count() == Transaction.objects.filter(kind="CHARGE").count() == len(answers) - 1
    invariants.check()
    empty()
    assert api().status_code == 202


def test_a_disk_that_takes_nothing_more_delays_what_runs(platform, ann):
    """A worker that may write no byte to any file cannot beat; when there is room again all its jobs end."""
    platform.up()
    jobs = [cook(ann, seconds=2) for _ in range(3)]
    until(is_running(jobs[0]), seconds=20)
    workers = [platform.children["worker"].pid, *platform.pool()]
    for pid in workers:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    until(lambda: fresh(jobs[0]).status == Status.RETRY, seconds=30)  # by the watchman, whose disk is another
    for pid in workers:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert {row.status for row in final(*jobs, seconds=60)} == {Status.SUCCEEDED}
