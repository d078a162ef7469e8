"""Alerts: told when they begin, hourly, and when over, by log, webhook and mail; a dead receiver holds nobody."""

import json
import re
import threading
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.core import mail
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from jobs import alerts, cleanup, lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.models import Alert, CleanupRun, Job, Tick
from tests.waiting import until

pytestmark = pytest.mark.django_db


@contextmanager
def receiver(status: int = 200):
    """A real webhook receiver; yields its address and the bodies that it got. Status 0: it never answers."""
    bodies, closing = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if status:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                closing.wait(20)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", bodies
    finally:
        closing.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def told_to(settings):
    """told_to(webhook="http://…", email="op@example.com") sets the channels."""

    def set_up(webhook: str = "", email: str = "", **own):
        settings.JOBSITE = {**settings.JOBSITE, "ALERT_WEBHOOK_URL": webhook, "ALERT_EMAIL": email, **own}

    set_up()
    Tick.objects.update(ran_at=Now())
    return set_up


@pytest.fixture
def late():
    """The cleanup has not run for a long time."""
    Tick.objects.filter(name="cleanup_stuck_jobs").update(ran_at=timezone.now() - timedelta(days=1))


def test_all_is_well(told_to):
    assert alerts.check() == 0
    assert set(alerts.conditions().values()) == {""}


def test_told_once_then_hourly_then_when_it_is_over(told_to, late, caplog):
    with receiver() as (url, bodies):
        told_to(url, "op@example.com")
        assert [alerts.check(), alerts.check()] == [1, 0]
        Alert.objects.update(sent_at=F("sent_at") - timedelta(minutes=61))
        assert alerts.check() == 1
        Tick.objects.update(ran_at=Now())
        assert [alerts.check(), alerts.check()] == [1, 0]
    assert [(body["alert"], body["state"]) for body in bodies] == [
        ("cleanup_not_running", "begun"),
        ("cleanup_not_running", "begun"),
        ("cleanup_not_running", "over"),
    ]
    assert "No cleanup for 86" in bodies[0]["detail"]
    assert [message.subject for message in mail.outbox] == [
        "[Jobsite] cleanup_not_running: begun",
        "[Jobsite] cleanup_not_running: begun",
        "[Jobsite] cleanup_not_running: over",
    ]
    said = [record.message for record in caplog.records if record.name == "jobs.alerts"]
    assert said[0].startswith("ALERT cleanup_not_running: No cleanup for") and said[-1].endswith("is over")


@pytest.mark.parametrize("status", [500, 301, 0])
def test_what_is_not_taken_is_sent_again_and_holds_nobody(told_to, late, monkeypatch, status):
    with receiver(status) as (url, bodies), monkeypatch.context() as impatient:
        impatient.setattr(alerts, "DEADLINE", 30.0 if status else 2.0)
        told_to(url, "op@example.com")
        alerts.check()
        until(lambda: len(bodies) == 1)
        assert Alert.objects.get(code="cleanup_not_running").owed == ["webhook"]
    with receiver() as (url, bodies):
        told_to(url, "op@example.com")
        alerts.check()
        assert len(bodies) == 1 and Alert.objects.get(code="cleanup_not_running").owed == []
    assert len(mail.outbox) == 1  # which had taken it the first time


def test_an_address_where_nobody_listens(told_to, late):
    told_to("http://127.0.0.1:9/hook")
    alerts.check()
    assert Alert.objects.get(code="cleanup_not_running").owed == ["webhook"]


def test_one_message_whoever_looks_at_the_same_time(told_to, late):
    known = Alert.objects.create(code="cleanup_not_running")
    assert alerts._raise(known.code, "first") == 1
    assert alerts._raise(known.code, "second") == 0
    Alert.objects.update(owed=["webhook"])
    row = Alert.objects.get()
    Alert.objects.update(owed=[])  # another one sends it
    alerts._send(row, set())  # nothing listens: it would be owed again
    assert Alert.objects.get().owed == []


def test_snoozed_it_is_only_logged(told_to, late, caplog):
    told_to("http://127.0.0.1:9/hook")
    Alert.objects.create(code="cleanup_not_running", snoozed_until=timezone.now() + timedelta(hours=1))
    assert alerts.check() == 1
    assert Alert.objects.get(code="cleanup_not_running").owed == []
    assert "ALERT cleanup_not_running" in caplog.text


def test_many_stuck_jobs_and_what_a_cleanup_found(told_to, running):
    told_to(ALERT_STUCK_JOBS=1)
    for _ in range(2):
        running(max_attempts=1)
    Job.objects.update(heartbeat_at=Now() - timedelta(hours=1))
    assert alerts.conditions()["many_stuck_jobs"].startswith("2 jobs are stuck")
    cleanup.cleanup_stuck_jobs(by="test")
    assert alerts.conditions()["many_stuck_jobs"]  # within the hour
    CleanupRun.objects.update(started_at=timezone.now() - timedelta(hours=2))
    assert not alerts.conditions()["many_stuck_jobs"]


def test_a_cleanup_by_cron_or_by_hand_is_one(told_to, late):
    assert alerts.conditions()["cleanup_not_running"]
    cleanup.cleanup_stuck_jobs(by="cron")
    assert not alerts.conditions()["cleanup_not_running"]


def test_a_cleanup_that_could_not_settle_a_job(told_to):
    run = CleanupRun.objects.create(by="beat", timeout=300, batch_size=1, found=3, failed=2, started_at=timezone.now())
    assert alerts.conditions()["cleanup_failures"] == "The last cleanup could not settle 2 jobs."
    CleanupRun.objects.create(by="beat", timeout=300, batch_size=1, started_at=run.started_at)
    assert not alerts.conditions()["cleanup_failures"]


def test_refund_volume(told_to, running):
    told_to(ALERT_REFUND_TOKENS=15)
    lifecycle.fail(running(max_attempts=1), JobError(ErrorCode.bad_input))
    assert not alerts.conditions()["refund_volume"]
    lifecycle.fail(running(max_attempts=1), JobError(ErrorCode.bad_input))
    assert alerts.conditions()["refund_volume"] == "20 tokens were refunded within the hour."


def test_who_dies_while_sending_loses_no_message(told_to, late, monkeypatch):
    """Seen to fail when the row was cleared first and filled again afterwards."""
    told_to(email="op@example.com")

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(alerts, "_mail", die)
        with pytest.raises(KeyboardInterrupt):
            alerts.check()
    alerts.check()  # the lease holds: another may still be sending
    assert mail.outbox == []
    Alert.objects.update(sent_by=F("sent_by") - alerts.LEASE)
    alerts.check()
    assert len(mail.outbox) == 1 and Alert.objects.get(code="cleanup_not_running").owed == []


def test_a_dead_channel_is_tried_once_a_check(told_to, late):
    """Else each of the conditions that are true costs DEADLINE seconds."""
    hour_ago = timezone.now() - timedelta(hours=1)
    CleanupRun.objects.create(by="x", timeout=300, batch_size=1, failed=1, started_at=hour_ago)
    with receiver(500) as (url, bodies):
        told_to(url)
        assert alerts.check() == 2
        assert len(bodies) == 1 and Alert.objects.exclude(owed=[]).count() == 2


def test_clocks_that_jump_or_part_are_told(monkeypatch):
    """F38: nothing is reaped by such a clock, and somebody hears of it."""
    Tick.objects.get_or_create(name="cleanup_stuck_jobs", defaults={"period": 900})
    assert alerts.conditions()["clock"] == ""
    monkeypatch.setattr(cleanup.clock, "_distrusted_until", float("inf"))
    assert "jumped" in alerts.conditions()["clock"]
    monkeypatch.setattr(cleanup.clock, "_distrusted_until", 0.0)
    ahead = timezone.now() + timedelta(minutes=5)
    monkeypatch.setattr(alerts.timezone, "now", lambda: ahead)
    assert re.search(r"-(300|29\d) s", alerts.conditions()["clock"])
