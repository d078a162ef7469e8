"""A forgotten user: nothing of theirs is left but the ledger's lines; broken off, the same command does the rest."""

import io

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.urls import reverse

from jobs import erasure, keys, lifecycle, webhooks
from jobs.models import IdempotencyKey, Job, LogLine, Preference, Upload
from tests.clients import ApiClient
from tests.jobs.conftest import running, submit, succeeded  # noqa: F401 - fixtures
from tokens.models import Account, Transaction

pytestmark = pytest.mark.django_db(transaction=True)  # files go after the commit
User = get_user_model()
TELLTALE = "telltale"


def forget(*arguments: str) -> str:
    out = io.StringIO()
    call_command("forget_user", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def carol(user, op, client, submit, succeeded, monkeypatch):  # noqa: F811
    """Has something of everything, with a word in it that must be nowhere afterwards."""
    carol = user(TELLTALE, email=f"{TELLTALE}@example.com", first_name=TELLTALE, last_name=TELLTALE, is_staff=True)
    done = succeeded()  # Ann's; one of hers below
    Job.objects.filter(pk=done.pk).update(owner=carol, metadata={"for": TELLTALE})
    lifecycle.claim("cpu")
    for number in range(2):
        submit(owner=carol, key=f"{TELLTALE}-{number}")
    live = Job.objects.filter(owner=carol, status="QUEUED")
    live.update(params={"prompt": TELLTALE}, error_message=TELLTALE)
    LogLine.objects.create(job=live.first(), attempt=1, at=done.created_at, text=TELLTALE)
    assert lifecycle.claim("cpu").owner_id == carol.pk  # one runs, one waits
    stored = default_storage.save("uploads/theirs", ContentFile(b"content"))
    Upload.objects.create(owner=carol, name=TELLTALE, key=stored, bytes=7, sha256="0" * 64, content_type="video/mp4")
    Preference.objects.create(owner=carol)
    monkeypatch.setattr(webhooks, "checked", lambda url: url)  # no look-up of the name here
    hook, _ = webhooks.create(carol.pk, url=f"https://{TELLTALE}.example/hook")
    client.force_login(op)
    client.post(reverse("admin:jobs_endpoint_changelist"), {"action": "mute", "_selected_action": [str(hook.pk)]})
    issue = {"_form_submitted": "True", "username": TELLTALE, "name": TELLTALE, "scope": "user"}
    client.post(reverse("admin:jobs_apikey_issue"), issue)
    client.post(reverse("admin:auth_user_send_link", args=[carol.pk]), {"_form_submitted": "True"})
    client.force_login(carol)
    client.get("/my/account/")
    return carol


def everything() -> str:
    """All rows of all tables, as text; what sessions hold is opened."""
    rows = [str(list(model._default_manager.values())) for model in apps.get_models(include_auto_created=True)]
    return "".join(rows) + "".join(str(session.get_decoded()) for session in Session.objects.all())


def files() -> set[str]:
    return {str(path) for path in map(str, default_storage.listdir("uploads")[1])}


def assert_forgotten(carol, lines: list) -> None:
    assert TELLTALE not in everything()
    assert files() == set()
    for relation in User._meta.related_objects:
        if relation.related_model not in (Account, LogEntry):
            assert not relation.related_model._default_manager.filter(**{relation.field.name: carol}).exists(), relation
    carol.refresh_from_db()
    assert (carol.username, carol.email, carol.is_active, carol.is_staff) == (f"forgotten-{carol.pk}", "", False, False)
    assert list(Transaction.objects.order_by("pk").values())[: len(lines)] == lines
    carol.account.refresh_from_db()
    assert carol.account.balance == 1000  # both live jobs came back


def test_nothing_is_left_but_the_ledgers_lines(carol):
    before = everything()
    assert before.count(TELLTALE) > 12
    lines = list(Transaction.objects.order_by("pk").values())
    told = forget(TELLTALE)
    assert "3 jobs (2 live" in told and "1 uploads" in told and everything() == before  # the dry run
    forget(TELLTALE, "--execute")
    assert_forgotten(carol, lines)
    assert forget(f"forgotten-{carol.pk}", "--execute")  # once more does no harm
    assert_forgotten(carol, lines)


@pytest.mark.parametrize("step", ["cancel", "delete", "remove", "_end_sessions", "_take_the_name"])
def test_broken_off_at_any_step_it_is_finished_by_the_same_command(carol, monkeypatch, step):
    lines = list(Transaction.objects.order_by("pk").values())
    owner = {"cancel": erasure.people.lifecycle, "delete": erasure.lifecycle, "remove": erasure.uploads}.get(
        step, erasure
    )

    def dies(*_, **__):
        raise OperationalError("the database went away")

    with monkeypatch.context() as broken, pytest.raises(OperationalError):
        broken.setattr(owner, step, dies)
        erasure.forget(carol, by="test")
    assert not User.objects.get(pk=carol.pk).is_active  # shut out all the same
    forget(TELLTALE, "--execute")
    assert_forgotten(carol, lines)


def test_others_lose_nothing(carol, ann, submit):  # noqa: F811
    job, key = submit(key="mine"), keys.issue(ann, "mine")[1]
    as_ann = ApiClient(ann)
    as_ann.force_login(ann)
    sessions = Session.objects.count()
    forget(TELLTALE, "--execute")
    assert keys.find(key) and Job.objects.filter(pk=job.pk).exists()
    assert Session.objects.count() == sessions - 1 and IdempotencyKey.objects.get().owner == ann


def test_the_last_admin_and_who_is_not_there_are_refused(op):
    for name in ("op", "nobody"):
        with pytest.raises(CommandError):
            forget(name, "--execute")
    assert User.objects.get(pk=op.pk).is_active


def test_who_took_the_name_beforehand_is_in_nobodys_way(op, carol):
    User.objects.create_user(f"forgotten-{carol.pk}")  # past `people.add`, which refuses it
    forget(TELLTALE, "--execute")
    carol.refresh_from_db()
    assert carol.username.startswith(f"forgotten-{carol.pk}-")
