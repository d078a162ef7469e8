"""All that match a filter: counted, priced and asked first, so many a go, going on where it stopped."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.contrib.messages import get_messages
from django.db import connection
from django.urls import reverse

from jobs import lifecycle, sql_views
from jobs.admin import bulk
from jobs.errors import ErrorCode, JobError
from jobs.models import Job, PartUpload, Upload
from tokens.models import Account

BULK = "/admin/jobs/job/bulk/"


@pytest.fixture
def operator(user, client):
    person = user("olga", tokens=0, is_staff=True)
    person.groups.add(Group.objects.get(name="operator"))
    client.force_login(person)
    return person


@pytest.fixture
def failed(running):
    def make(count: int, code=ErrorCode.bad_input, **params):
        for _ in range(count):
            lifecycle.fail(running(**params), JobError(code))

    return make


def said(answer) -> str:
    return " | ".join(str(message) for message in get_messages(answer.wsgi_request))


def balance(person) -> int:
    return Account.objects.get(pk=person.pk).balance


def test_it_counts_and_prices_first_and_does_nothing_on_get(client, operator, ann, failed, submit):
    failed(3)
    failed(2, ErrorCode.ffmpeg_error)
    submit()
    page = client.get(BULK, {"verb": "retry", "error_code": "bad_input"}).content.decode()
    assert "Retry 3 of 3 matching jobs in this go: 30 tokens charged." in page
    page = client.get(BULK, {"verb": "retry"}).content.decode()
    assert "Retry 5 of 5 matching jobs" in page and "does not allow it: 1<" in page
    assert Job.objects.filter(status="FAILED").count() == 5 and balance(ann) == 990


def test_it_goes_on_below_where_it_stopped_and_past_what_was_refused(client, operator, ann, failed, monkeypatch):
    monkeypatch.setattr(bulk, "GO", 2)
    failed(1)
    failed(2, price=400)  # of these the second cannot be paid
    failed(1)
    Account.objects.filter(pk=ann.pk).update(balance=410)
    address = f"{BULK}?verb=retry&status=FAILED"
    answer = client.post(address, {"confirmed": "yes"})
    assert "Retried 2 jobs; 410 tokens charged." in said(answer) and "There are more" in said(answer)
    assert answer.status_code == 302 and "below=" in answer["Location"]
    page = client.get(answer["Location"]).content.decode()
    assert "Retry 2 of 2 matching jobs" in page
    answer = client.post(answer["Location"], {"confirmed": "yes"})
    assert "Skipped 2 jobs" in said(answer) and "This job costs 400 tokens." in said(answer)
    assert answer["Location"] == "/admin/jobs/job/?status=FAILED" and balance(ann) == 0
    assert Job.objects.filter(status="FAILED").count() == 2
    Account.objects.filter(pk=ann.pk).update(balance=0)
    entries = LogEntry.objects.all()
    assert len(entries) == 2 and all("Filter: verb=retry&status=FAILED" in entry.change_message for entry in entries)


def test_failing_many_needs_a_reason(client, operator, ann, submit):
    submit(), submit()
    address = f"{BULK}?verb=fail_by_hand&q=user:ann"
    assert client.post(address, {"confirmed": "yes", "reason": ""}).status_code == 200
    assert Job.objects.filter(status="QUEUED").count() == 2
    answer = client.post(address, {"confirmed": "yes", "reason": "disk broke"})
    assert "Failed by hand 2 jobs; 20 tokens refunded." in said(answer) and balance(ann) == 1000
    assert all("disk broke" in entry.change_message for entry in LogEntry.objects.all())


def test_it_touches_nothing_but_what_the_filter_finds(client, operator, ann, bob, submit):
    mine, other = submit(), submit(owner=bob)
    client.post(f"{BULK}?verb=cancel&q=user:bob", {"confirmed": "yes"})
    mine.refresh_from_db(), other.refresh_from_db()
    assert (mine.status, other.status) == ("QUEUED", "CANCELED")
    client.post(f"{BULK}?verb=cancel&q=colour:red", {"confirmed": "yes"})
    client.post(f"{BULK}?verb=cancel&no_such_filter=1", {"confirmed": "yes"})
    client.post(f"{BULK}?verb=delete_all", {"confirmed": "yes"})
    mine.refresh_from_db()
    assert mine.status == "QUEUED"


@pytest.mark.parametrize("role", ["viewer", "finance"])
def test_others_may_not(client, user, submit, role):
    person = user("somebody", tokens=0, is_staff=True)
    person.groups.add(Group.objects.get(name=role))
    client.force_login(person)
    submit()
    assert client.get(f"{BULK}?verb=cancel").status_code == 403
    assert client.post(f"{BULK}?verb=cancel", {"confirmed": "yes"}).status_code == 403
    assert "Cancel…" not in client.get(reverse("admin:jobs_job_changelist")).content.decode()
    assert Job.objects.get().status == "QUEUED"


@pytest.mark.parametrize("name", list(sql_views.VIEWS))
def test_each_sql_view_is_a_page(client, operator, running, failed, submit, name):
    failed(1)
    submit(), running()
    page = client.get(reverse("admin:jobs_job_sql_view", args=[name]))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {name}")
        names, rows = [column[0] for column in cursor.description], cursor.fetchall()
    assert page.context["table"]["headers"] == names and len(page.context["table"]["rows"]) == len(rows)


def test_a_view_is_paged_and_an_unknown_one_not_found(client, operator, submit, monkeypatch):
    monkeypatch.setattr("jobs.admin.views.LINES", 2)
    for _ in range(3):
        submit()
    address = reverse("admin:jobs_job_sql_view", args=["jobs"])
    assert "Next" in client.get(address).content.decode()
    assert len(client.get(address, {"p": "2"}).context["table"]["rows"]) == 1
    for strange in ("0", "-1", "x", "9" * 9):
        assert client.get(address, {"p": strange}).status_code == 200
    assert client.get(reverse("admin:jobs_job_sql_view", args=["auth_user"])).status_code == 404


def test_uploads_that_no_job_needs_are_deleted_and_logged(client, operator, ann):
    upload = Upload.objects.create(
        owner=ann, name="a.mp4", key="uploads/a", bytes=1, sha256="0" * 64, content_type="video/mp4"
    )
    begun = PartUpload.objects.create(owner=ann, name="b.mp4", key="uploads/b", upload_id="u", bytes=5, sha256="")
    assert "b.mp4" in client.get(reverse("admin:jobs_partupload_changelist")).content.decode()
    client.post(reverse("admin:jobs_upload_changelist"), {"action": "remove", "_selected_action": [str(upload.pk)]})
    assert not Upload.objects.exists()
    assert LogEntry.objects.get().object_repr == str(upload)
    assert client.get(reverse("admin:jobs_partupload_change", args=[begun.pk])).status_code == 200


def test_a_jobs_page_begins_with_how_it_stands(client, operator, submit):
    page = client.get(reverse("admin:jobs_job_change", args=[submit().pk])).content.decode()
    assert "No worker serves the queue cpu: start one with -Q cpu." in page and "10 tokens charged." in page
