"""Sample data: laid by the ways of all jobs and money, named on every page, gone with one click; on a fresh platform
alone."""

import io
from collections import Counter
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from jobs import blobs, people, sample_data, stats
from jobs.admin.dashboard import figures
from jobs.errors import ErrorCode
from jobs.models import Artifact, CleanupRun, Delivery, Job, JobEvent, Sample, Status
from tests import invariants
from tokens.models import Transaction

pytestmark = pytest.mark.django_db(transaction=True)  # jobs are really run, files go after the commit
REMOVE = "/admin/auth/user/sample-data/remove/"


@pytest.fixture(autouse=True)
def _fresh():
    figures.forget()
    yield
    figures.forget()


@pytest.fixture
def marked(db):
    """A sample user and nothing else."""
    person = people.add("sample-ann", tokens=5, by="test")
    person.groups.add(Group.objects.create(name=sample_data.GROUP))
    return person


def staff(user, role: str) -> Client:
    person = user(f"{role}-person", tokens=0, is_staff=True)
    person.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(person)
    return client


def command(*arguments: str) -> str:
    out = io.StringIO()
    call_command("sample_data", *arguments, stdout=out)
    return out.getvalue()


def test_every_face_has_something_to_see_and_all_of_it_is_sound_until_it_is_gone(user):
    admin = staff(user, "admin")
    assert "--execute does it" in command() and not sample_data.here()
    command("--execute")
    invariants.check()
    call_command("reconcile_tokens", stdout=io.StringIO())
    statuses = Counter(Job.objects.values_list("status", flat=True))
    assert set(statuses) == set(Status.values) - {"RUNNING"}  # what runs, a worker really runs
    assert statuses["SUCCEEDED"] >= 12 and statuses["FAILED"] >= 6 and statuses["CANCELED"] == 2
    made = set(Artifact.objects.values_list("job__kind", flat=True))
    assert made == {"RENDER", "STITCH", "ENHANCE", "INGEST", "ANALYZE"}
    assert Job.objects.filter(status="SUCCEEDED", round=2).exists() and Job.objects.filter(failures=3).exists()
    assert Job.objects.get(status="RETRY").run_after > timezone.now() + timedelta(hours=1)
    codes = set(Job.objects.filter(status="FAILED").values_list("error_code", flat=True))
    assert codes >= {"bad_input", "ffmpeg_error", "out_of_memory", "timeout", "provider_error", "worker_timeout"}
    assert {ErrorCode[code].row.refund for code in codes} == {True} and Transaction.objects.filter(
        kind="REFUND"
    ).exists()
    assert [run.cleaned for run in CleanupRun.objects.filter(dry_run=False)] == [1]
    assert sorted(delivery.state for delivery in Delivery.objects.all()) == ["delivered", "failed"]
    day = stats.day()
    assert sum(hour.ended > 0 for hour in day.hours) >= 12
    assert day.total("succeeded") == statuses["SUCCEEDED"] and day.total("failed") == statuses["FAILED"]
    assert {line.kind for line in stats.times()} == made
    with pytest.raises(CommandError, match="already"):
        command("--execute")

    page = admin.get("/admin/").content.decode()
    assert "Sample data is here" in page and REMOVE in page and "Dead letters" in page
    lines = list(Transaction.objects.order_by("pk").values_list("pk", "account_id", "amount"))
    names = {person.username for person in sample_data.users()}
    after = admin.post(REMOVE, follow=True).content.decode()
    assert "The sample data is gone: 3 users were forgotten" in after and "Sample data is here" not in after
    for model in (Job, JobEvent, Artifact, Delivery, CleanupRun, Sample):
        assert not model._default_manager.exists(), model
    assert blobs.listing("jobs") == [] and default_storage.listdir("uploads")[1] == []
    assert list(Transaction.objects.order_by("pk").values_list("pk", "account_id", "amount"))[: len(lines)] == lines
    assert not names & set(sample_data.User.objects.values_list("username", flat=True))
    assert LogEntry.objects.latest("pk").change_message.startswith("The sample data is gone")
    invariants.check()
    with pytest.raises(CommandError, match="No sample data"):
        command("--remove", "--execute")


def test_it_is_laid_beside_no_jobs_of_users(submit):
    submit()
    with pytest.raises(CommandError, match="jobs here already"):
        command("--execute")
    assert not sample_data.here() and Job.objects.count() == 1


def test_the_command_shows_what_it_would_remove_and_removes_it(marked, bob):
    assert "would forget sample-ann: 0 jobs" in command("--remove") and sample_data.here()
    assert "1 users were forgotten" in command("--remove", "--execute")
    marked.refresh_from_db()
    assert marked.username == f"forgotten-{marked.pk}" and not sample_data.here()
    bob.refresh_from_db()
    assert bob.username == "bob" and bob.is_active


@pytest.mark.parametrize("role", ["viewer", "operator", "finance"])
def test_all_staff_see_the_banner_but_only_admins_its_button(marked, user, role):
    client = staff(user, role)
    page = client.get("/admin/").content.decode()
    assert "Sample data is here" in page and REMOVE not in page
    assert client.post(REMOVE).status_code == 403 and sample_data.here()


def test_only_a_post_with_the_pages_token_removes(marked, op):
    client = Client(enforce_csrf_checks=True)
    client.force_login(op)
    assert client.get(REMOVE).status_code == 405 and client.post(REMOVE).status_code == 403
    assert sample_data.here() and reverse("admin:auth_user_remove_sample_data") == REMOVE


def test_its_users_read_it_and_others_do_not(marked, user, client):
    namesake = user("sample-of-someone")
    for person, told in ((marked, True), (namesake, False)):
        client.force_login(person)
        assert ("Sample data is here" in client.get("/my/jobs/").content.decode()) is told
