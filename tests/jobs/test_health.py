"""What turns /health red, one thing at a time; busy never does."""

import errno
import os
import shutil
from datetime import timedelta

import pytest
from django.core.files.storage import default_storage
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.functions import Now
from django.utils import timezone

from jobs import artifacts, health, lifecycle, slots, upkeep
from jobs.models import Job, Slot, Tick
from tokens.models import Account

pytestmark = pytest.mark.django_db


@pytest.fixture
def slot():
    """A worker process with a free slot for every queue."""
    upkeep.install()
    Tick.objects.update(ran_at=Now())
    return slots.register(["cpu", "gpu", "remote"])


def red() -> set[str]:
    return {check.code for check in health.report() if not check.ok}


def test_a_platform_at_work_is_well(slot):
    assert red() == set()


def test_busy_is_not_red(slot, submit):
    """Every slot taken, and jobs that wait for long."""
    submit()
    lifecycle.claim("cpu", slot.pk)
    late = submit()
    Job.objects.filter(pk=late.pk).update(run_after=timezone.now() - timedelta(hours=1))
    assert red() == set()


def test_a_deaf_queue_is_red(slot, submit, settings):
    late = submit()
    wait = settings.JOBSITE["DEAF_SECONDS"]
    Job.objects.filter(pk=late.pk).update(run_after=timezone.now() - timedelta(seconds=wait / 2))
    assert red() == set()
    Job.objects.filter(pk=late.pk).update(run_after=timezone.now() - timedelta(seconds=wait + 5))
    assert red() == {"deaf_cpu"}


def test_a_queue_without_a_beating_worker_is_red(slot):
    Slot.objects.update(queues=["cpu"])
    assert red() == {"worker_gpu"}
    Slot.objects.update(queues=["cpu", "gpu"], seen_at=timezone.now() - timedelta(seconds=11))
    assert red() == {"worker_gpu", "worker_cpu"}


@pytest.mark.parametrize("name", ["dispatch_due", "monitor_heartbeats", "cleanup_stuck_jobs", "reconcile_tokens"])
def test_a_watchman_two_periods_late_is_red(slot, name):
    period = upkeep.schedule()[name][1]
    Tick.objects.filter(name=name).update(ran_at=timezone.now() - timedelta(seconds=1.2 * period))
    assert red() == set()
    Tick.objects.filter(name=name).update(ran_at=timezone.now() - timedelta(seconds=2 * period + 2))
    assert red() == {f"tick_{name}"}


def test_a_watchman_whose_last_run_is_in_the_future_is_red(slot):
    """The clock was set back, and for all that is known it has not run since."""
    Tick.objects.filter(name="monitor_heartbeats").update(ran_at=timezone.now() + timedelta(hours=1))
    assert red() == {"tick_monitor_heartbeats"}
    upkeep.take("monitor_heartbeats")
    assert red() == set()


def test_a_new_platform_is_well_once_the_dispatcher_ran(slot):
    Tick.objects.update(since=timezone.now())
    Tick.objects.update(ran_at=None)
    assert red() == {"tick_dispatch_due"}
    upkeep.take("dispatch_due")
    assert red() == set()


def test_watchmen_that_never_ran_count_from_the_first_start(slot):
    Tick.objects.update(since=timezone.now() - timedelta(hours=1))
    Tick.objects.exclude(name="dispatch_due").update(ran_at=None)
    late = {"monitor_heartbeats", "count_events", "check_alerts", "take_sample", "cleanup_stuck_jobs", "sweep_remote"}
    late |= {"deliver_webhooks", "send_mail"}
    assert red() == {f"tick_{name}" for name in late}


def test_a_full_disk_is_red(slot, settings):
    settings.JOBSITE = {**settings.JOBSITE, "DISK_FREE_BYTES": 2**60}
    assert red() == {"disk"}


def test_a_disk_that_does_not_answer_is_red_and_takes_no_jobs(slot, as_ann, client, monkeypatch):
    """A network disk that has gone: it was a 500 of all three."""

    def gone(path):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    monkeypatch.setattr(shutil, "disk_usage", gone)
    assert red() == {"disk"}
    assert as_ann.send("/api/jobs/", {"kind": "KITCHEN", "params": {}}).json()["code"] == "storage_full"
    assert b"jobsite_disk_free_bytes 0.0" in client.get("/metrics").content


def test_a_storage_whose_folder_will_be_made_has_room(monkeypatch, tmp_path):
    monkeypatch.setattr(default_storage, "path", lambda name: str(tmp_path / "mount" / "jobsite" / name))
    assert artifacts.free_bytes() > 0


def test_a_storage_that_refuses_is_red(slot, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(default_storage, "save", full)
    assert red() == {"storage"}


def test_a_balance_without_its_ledger_line_is_red(ann, slot):
    Account.objects.filter(pk=ann.pk).update(balance=5)
    assert red() == {"ledger"}


def test_a_broker_that_is_not_there_is_red(slot, monkeypatch, tmp_path):
    from celery import current_app
    from kombu import Connection

    nowhere = f"redis+socket://{tmp_path}/broker.sock"
    monkeypatch.setattr(current_app, "connection_for_read", lambda **options: Connection(nowhere, **options))
    assert red() == {"broker"}


def test_without_a_database_the_rest_is_still_told(slot, monkeypatch):
    def away(*args, **kwargs):
        raise OperationalError("away")

    monkeypatch.setattr(connection, "cursor", away)
    monkeypatch.setattr(connection, "close_if_unusable_or_obsolete", lambda: None)
    found = health.report()
    assert [check.code for check in found if not check.ok] == ["database"]
    assert {check.code for check in found} == {"database", "broker", "storage", "disk", "walls"}
    assert [check.code for check in health.ready()] == ["database", "storage"]


def test_answers_are_remembered_for_a_while():
    asked = []
    remembered = health._Remembered(lambda: asked.append(1) or health.Check("x", True), 60.0)
    assert remembered() is remembered()
    assert len(asked) == 1
    remembered.forget()
    remembered()
    assert len(asked) == 2


def test_unapplied_migrations_are_not_ready(monkeypatch):
    monkeypatch.setattr(health, "_migrated", False)
    MigrationRecorder.Migration.objects.filter(app="jobs").order_by("-pk").first().delete()
    assert [check.code for check in health.ready() if not check.ok] == ["migrations"]
