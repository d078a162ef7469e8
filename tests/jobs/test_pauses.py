"""A paused queue: nothing is claimed, what runs goes on, and resuming it loses nothing."""

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from jobs import dispatch, health, lifecycle, pauses
from jobs.models import Pause

pytestmark = pytest.mark.django_db


def test_nothing_is_claimed_while_paused_and_all_of_it_afterwards(submit):
    job = submit()
    pauses.pause("cpu", reason="New disk.", by="test")
    assert lifecycle.claim("cpu") is None
    assert dispatch.due("cpu", 10) == 0 and not dispatch.overdue("cpu", 0.0)
    assert pauses.resume("cpu", by="test")
    assert lifecycle.claim("cpu").job_id == job.pk


def test_another_queue_goes_on(submit):
    job = submit()
    pauses.pause("gpu", reason="New card.", by="test")
    assert lifecycle.claim("cpu").job_id == job.pk


def test_what_runs_goes_on(running):
    lease = running()
    pauses.pause("cpu", reason="New disk.", by="test")
    lifecycle.beat(lease, progress=0.5, stage="cooking")
    lifecycle.succeed(lease, [])


def test_a_second_pause_changes_the_reason_and_a_second_resume_does_nothing():
    pauses.pause("cpu", reason="One.", by="test")
    pauses.pause("cpu", reason="Two.", by="test")
    assert Pause.objects.get().reason == "Two."
    assert [pauses.resume("cpu", by="test") for _ in range(2)] == [True, False]


def test_health_tells_it_without_turning_red():
    pauses.pause("cpu", reason="New disk.", by="test")
    told = {check.code: check for check in health.report()}["paused_cpu"]
    assert told.ok and "New disk." in told.detail


def test_the_command(capsys):
    call_command("queue", "pause", "cpu", "--reason", "New disk.")
    assert "cpu: 0 free slots, paused since" in capsys.readouterr().out
    call_command("queue", "resume", "cpu")
    assert not Pause.objects.exists()
    with pytest.raises(CommandError, match="There is no queue hall"):
        call_command("queue", "pause", "hall", "--reason", "x")


def test_the_admin_pauses_and_resumes(client, op):
    client.force_login(op)
    page = reverse("admin:jobs_pause_add")
    assert client.post(page, {"queue": "cpu", "reason": "New disk."}).status_code == 302
    assert Pause.objects.get().by == f"user:{op.pk}"
    listed = client.get(reverse("admin:jobs_pause_changelist")).content.decode()
    assert op.username in listed.partition("New disk.")[2].partition("</tr>")[0]
    assert client.post(reverse("admin:jobs_pause_delete", args=["cpu"]), {"post": "yes"}).status_code == 302
    assert not Pause.objects.exists()
