"""Each period's work happens once, whoever asks."""

import threading
from datetime import timedelta

import pytest
from django.db import connections
from django.db.models.functions import Now
from django_celery_beat.models import PeriodicTask

from jobs import upkeep
from jobs.models import Tick

pytestmark = pytest.mark.django_db


def test_the_schedule_is_in_beats_tables_by_migration():
    ours = PeriodicTask.objects.filter(task__startswith="jobs.")
    rows = {row.name: (row.task, row.interval.every, row.queue) for row in ours}
    assert rows["cleanup_stuck_jobs"] == ("jobs.cleanup_stuck_jobs", 900, "upkeep")
    assert rows["monitor_heartbeats"] == ("jobs.monitor_heartbeats", 30, "upkeep")


def test_installing_again_keeps_what_the_operator_switched_off():
    PeriodicTask.objects.filter(name="sweep_storage").update(enabled=False)
    upkeep.install()
    assert not PeriodicTask.objects.get(name="sweep_storage").enabled


def test_a_turn_is_taken_once_a_period():
    assert upkeep.take("monitor_heartbeats")
    assert not upkeep.take("monitor_heartbeats")
    Tick.objects.update(ran_at=Now() - timedelta(seconds=25))
    assert upkeep.take("monitor_heartbeats")  # 0.8 of 30 s are over


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
