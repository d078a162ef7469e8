"""The schedules in plain words: what each does, when it really ran, when it runs next."""

import re
from datetime import datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.test import Client
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from jobs import tasks, upkeep
from jobs.admin import beat
from jobs.models import Tick

pytestmark = pytest.mark.django_db
LIST = "/admin/django_celery_beat/periodictask/"


def test_each_entry_says_what_it_does_and_when(op, admin_client):
    upkeep.install()
    ran = timezone.now() - timedelta(days=2)
    Tick.objects.filter(name="sweep_storage").update(ran_at=ran)
    PeriodicTask.objects.create(name="theirs", task="their.task", interval=PeriodicTask.objects.first().interval)
    page = admin_client.get("/admin/django_celery_beat/periodictask/").content.decode()
    assert "nudges for due jobs that no message speaks for" in page
    assert "every 5 seconds" in page
    assert "unknown to this version" in page
    for at in (ran, ran + timedelta(days=1)):
        assert _as_shown(at) in page


def test_it_says_how_long_the_last_run_took_and_what_it_did(admin_client, monkeypatch):
    upkeep.install()
    assert tasks.take_sample() == 1
    monkeypatch.setattr(tasks.ledger, "drifted", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tasks.reconcile_tokens()
    sampled, failed = Tick.objects.get(name="take_sample"), Tick.objects.get(name="reconcile_tokens")
    assert sampled.found == 1 and 0 < sampled.seconds < 60
    assert failed.found is None and failed.seconds is not None
    page = admin_client.get(LIST).content.decode()
    assert ">failed<" in re.sub(r"\s", "", page) and _as_shown(sampled.ran_at) in page


def test_run_now_runs_it_once_before_its_period_is_over(admin_client, op, monkeypatch):
    upkeep.install()
    sent = []
    monkeypatch.setattr(beat.current_app, "send_task", lambda name, *given, queue: sent.append((name, queue)))
    assert tasks.take_sample() == 1 and tasks.take_sample() == 0
    chosen = PeriodicTask.objects.get(name="take_sample").pk
    answer = admin_client.post(LIST, {"action": "run_tasks", "_selected_action": [chosen]}, follow=True)
    assert "Sent: take_sample." in answer.content.decode() and sent == [("jobs.take_sample", "upkeep")]
    assert tasks.take_sample() == 1 and tasks.take_sample() == 0
    assert LogEntry.objects.get(user=op).change_message == "Sent to be run now."


@pytest.mark.parametrize("action", ["disable_tasks", "toggle_tasks", "run_tasks"])
def test_who_may_only_look_switches_nothing_off(user, action):
    upkeep.install()
    viewer = user("viv", tokens=0, is_staff=True)
    viewer.groups.add(Group.objects.get(name="viewer"))
    client = Client()
    client.force_login(viewer)
    assert client.get(LIST).status_code == 200
    chosen = PeriodicTask.objects.get(name="dispatch_due").pk
    client.post(LIST, {"action": action, "_selected_action": [chosen]}, follow=True)
    assert PeriodicTask.objects.get(pk=chosen).enabled and not Tick.objects.filter(asked=True).exists()


def _as_shown(at: datetime) -> str:
    from django.utils.formats import localize

    return str(localize(timezone.template_localtime(at)))


@pytest.fixture
def admin_client(op):
    client = Client()
    client.force_login(op)
    return client
