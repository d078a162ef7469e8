"""Everything out: whole, in order, harmless in a spreadsheet, for those who may."""

import csv
import errno
import io
import json

import pytest
from asgiref.sync import async_to_sync
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.test import AsyncClient
from django.urls import reverse

from jobs import export
from jobs.models import Job
from tests.clients import content
from tokens.models import Transaction


@pytest.fixture
def rows(submit, bob):
    """Three jobs, one of Bob's with words that a spreadsheet would run."""
    for _ in range(2):
        submit()
    job = submit(owner=bob)
    Job.objects.filter(pk=job.pk).update(
        error_message="=cmd|'/c calc'!A1", metadata={"a": '"quoted", and\nbroken'}, stage="\t@SUM(1)"
    )
    return job


@pytest.fixture
def viewer(user):
    person = user("viv", tokens=0, is_staff=True)
    person.groups.add(Group.objects.get(name="viewer"))
    return person


def parsed(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("batch", [1, 2, 1000])
def test_every_row_once_newest_first_in_both_forms(rows, monkeypatch, batch):
    monkeypatch.setattr(export, "BATCH", batch)
    ids = [str(pk) for pk in Job.objects.order_by("-id").values_list("pk", flat=True)]
    assert [row["id"] for row in parsed("".join(export.jobs(Job.objects.all(), "csv")))] == ids
    assert [row["id"] for row in json.loads("".join(export.jobs(Job.objects.all(), "json")))] == ids
    lines = json.loads("".join(export.ledger(Transaction.objects.all(), "json")))
    assert [line["id"] for line in lines] == list(Transaction.objects.order_by("-id").values_list("pk", flat=True))
    assert sum(line["amount"] for line in lines) == 1970
    assert export_of_none() == ["[]\n", "id,owner"]


def export_of_none() -> list[str]:
    none = Job.objects.none()
    return ["".join(export.jobs(none, "json")), "".join(export.jobs(none, "csv"))[:8]]


def test_a_spreadsheet_runs_nothing_and_json_keeps_the_words(rows):
    (row,) = parsed("".join(export.jobs(Job.objects.filter(pk=rows.pk), "csv")))
    assert row["error_message"] == "'=cmd|'/c calc'!A1" and row["stage"] == "'\t@SUM(1)"
    assert json.loads(row["metadata"]) == {"a": '"quoted", and\nbroken'} and row["price"] == "10"
    (told,) = json.loads("".join(export.jobs(Job.objects.filter(pk=rows.pk), "json")))
    assert told["error_message"] == "=cmd|'/c calc'!A1" and told["metadata"] == {"a": '"quoted", and\nbroken'}
    charge = next(
        line for line in parsed("".join(export.ledger(Transaction.objects.all(), "csv"))) if line["kind"] == "CHARGE"
    )
    assert charge["amount"] == "-10"  # a number stays one


def test_the_lists_links_export_what_the_list_shows_and_say_so_in_the_log(client, viewer, rows):
    client.force_login(viewer)
    answer = client.get(reverse("admin:jobs_job_export", args=["csv"]), {"q": "user:bob", "status": "QUEUED"})
    assert [row["owner"] for row in parsed(content(answer).decode())] == ["bob"]
    assert answer["Content-Disposition"].startswith("attachment") and answer["Content-Type"].startswith("text/csv")
    answer = client.get(reverse("admin:jobs_job_export_ledger", args=["json"]), {"kind__exact": "CHARGE"})
    assert {line["kind"] for line in json.loads(content(answer))} == {"CHARGE"}
    assert "q=user%3Abob" in LogEntry.objects.order_by("id")[0].change_message
    assert client.get(reverse("admin:jobs_job_export", args=["xml"])).status_code == 404


def test_who_may_not_see_may_not_export(client, user, ann, rows):
    clerk = user("clerk", tokens=0, is_staff=True)
    for person, status in ((clerk, 403), (ann, 302)):
        client.force_login(person)
        for name in ("jobs_job_export", "jobs_job_export_ledger"):
            assert client.get(reverse(f"admin:{name}", args=["csv"])).status_code == status
    assert not LogEntry.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_under_asgi_it_comes_in_lumps(rows, viewer):
    client = AsyncClient()
    client.force_login(viewer)

    async def fetch() -> list[bytes]:
        answer = await client.get(reverse("admin:jobs_job_export", args=["json"]))
        return [piece async for piece in answer.streaming_content]

    assert len(json.loads(b"".join(async_to_sync(fetch)()))) == 3


def test_the_command_writes_a_new_file_and_overwrites_none(rows, tmp_path, capsys):
    path = tmp_path / "jobs.csv"
    call_command("export", "jobs", search="user:bob", output=path)
    assert [row["owner"] for row in parsed(path.read_text())] == ["bob"]
    with pytest.raises(CommandError, match="exists already"):
        call_command("export", "jobs", output=path)
    with pytest.raises(CommandError, match="no qualifier"):
        call_command("export", "jobs", search="colour:red")
    call_command("export", "ledger", format="json")
    assert len(json.loads(capsys.readouterr().out)) == Transaction.objects.count()


def test_a_command_that_cannot_write_all_leaves_no_half(rows, tmp_path, monkeypatch):
    def full(rows, form):
        yield "id,owner"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "jobs", full)
    with pytest.raises(CommandError, match=r"rows\.csv cannot be written: No space left on device"):
        call_command("export", "jobs", output=tmp_path / "rows.csv")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CommandError, match="The output cannot be written"):
        call_command("export", "jobs")
