"""Each period's work happens once, whoever asks."""

import threading
from datetime import timedelta

import pytest
from django.db import connections
from django.db.models.functions import Now
from django.utils import timezone
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask

from jobs import upkeep
from jobs.models import Tick
from jobsite.beat import Scheduler
from jobsite.celery import app

pytestmark = pytest.mark.django_db


def test_the_schedule_is_in_beats_tables_by_migration():
    ours = PeriodicTask.objects.filter(task__startswith="jobs.")
    rows = {row.name: (row.task, str(row.interval), row.queue) for row in ours}
    assert rows["cleanup_stuck_jobs"] == ("jobs.cleanup_stuck_jobs", "every 15 minutes", "upkeep")
    assert rows["reconcile_tokens"][1] == "every day"
    assert rows["monitor_heartbeats"] == ("jobs.monitor_heartbeats", "every 30 seconds", "upkeep")


def test_installing_again_keeps_what_the_operator_switched_off():
    PeriodicTask.objects.filter(name="sweep_storage").update(enabled=False)
    upkeep.install()
    assert not PeriodicTask.objects.get(name="sweep_storage").enabled


@pytest.mark.parametrize("other", ["crontab", "clocked"])
def test_another_schedule_that_the_operator_gave_one_of_ours_keeps_no_platform_from_starting(other):
    task = PeriodicTask.objects.get(name="sweep_storage")
    task.interval = None
    if other == "crontab":
        task.crontab = CrontabSchedule.objects.create(minute="0", hour="3")
    else:
        task.clocked, task.one_off = ClockedSchedule.objects.create(clocked_time=timezone.now()), True
    task.save()
    upkeep.install()
    task.refresh_from_db()
    assert (str(task.interval), task.crontab, task.clocked, task.one_off) == ("every day", None, None, False)


def test_an_interval_that_the_operator_made_a_second_time_keeps_no_platform_from_starting():
    IntervalSchedule.objects.create(every=1, period="days")
    upkeep.install()
    assert str(PeriodicTask.objects.get(name="sweep_storage").interval) == "every day"


def test_a_beat_that_is_restarted_again_and_again_still_sends_what_is_due_once_a_day():
    """Each start of Beat reads its entries; one that was never sent counts from when it was written."""
    upkeep.install()
    installed = PeriodicTask.objects.get(name="sweep_storage")
    PeriodicTask.objects.update(last_run_at=installed.last_run_at - timedelta(hours=25))
    upkeep.install()  # `manage.py up`, the next morning
    entry = Scheduler(app=app, lazy=True).Entry(PeriodicTask.objects.get(name="sweep_storage"), app=app)
    assert entry.is_due().is_due


def test_a_turn_is_taken_once_a_period():
    assert upkeep.take("monitor_heartbeats")
    assert not upkeep.take("monitor_heartbeats")
    Tick.objects.update(ran_at=Now() - timedelta(seconds=25))
    assert upkeep.take("monitor_heartbeats")  # 0.8 of 30 s are over


def test_a_clock_that_is_set_back_keeps_no_watchman_from_its_turn():
    """It was an hour ahead, say from a start before the network's time had come."""
    Tick.objects.update(ran_at=Now() + timedelta(hours=1))
    assert [upkeep.take("monitor_heartbeats") for _ in range(2)] == [True, False]


@pytest.mark.django_db(transaction=True)
def test_beat_sends_on_after_its_clock_was_set_back(monkeypatch):
    upkeep.install()
    PeriodicTask.objects.update(last_run_at=timezone.now() + timedelta(hours=1))
    beat = Scheduler(app=app, lazy=True)
    beat._finalize.cancel()  # at the end of the tests it would write to a database that is gone
    monkeypatch.setattr(beat, "apply_async", lambda entry, **_: None)
    assert beat.tick() <= 5
    assert beat.tick() <= 5  # its tables were written just now: it may have read them again
    waits = {name: entry.is_due().next for name, entry in beat.schedule.items()}
    assert waits["dispatch_due"] <= 5 and 25 < waits["monitor_heartbeats"] <= 30
    assert [event.entry.name for event in sorted(beat._heap)][:2] == ["dispatch_due", "deliver_webhooks"]


@pytest.mark.django_db(transaction=True)
def test_two_beats_at_once_take_one_turn():
    taken, gate = [], threading.Barrier(4)

    def beat():
        gate.wait()
        try:
            taken.append(upkeep.take("dispatch_due"))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=beat) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False, False, False, True]
