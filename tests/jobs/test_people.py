"""Users come by invitation, and go when the operator says so."""

import io
import json
import re

import pytest
from django.contrib.auth import get_user_model
from django.core import mail
from django.core.management import CommandError, call_command
from django.urls import reverse

from jobs import keys, lifecycle, people
from jobs.models import ApiKey, Job, Preference, Status
from tests.clients import ApiClient
from tests.jobs.conftest import running, submit  # noqa: F401 - fixtures
from tokens.models import Account

pytestmark = pytest.mark.django_db
User = get_user_model()
LINK = re.compile(r"http://127\.0\.0\.1:8000(/[^\s<]+)")
PASSWORD = "a long and quiet evening"


def user_command(*arguments: str) -> str:
    out = io.StringIO()
    call_command("user", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def with_mail(settings):
    settings.MAIL = True  # the test runner keeps what is sent in mail.outbox


def choose_password(client, text: str, password: str = PASSWORD) -> None:
    """What the invited person does: follow the link, choose a password."""
    form = client.get(LINK.search(text)[1], follow=True)
    assert form.status_code == 200
    done = client.post(form.redirect_chain[-1][0], {"new_password1": password, "new_password2": password}, follow=True)
    assert done.status_code == 200, done.content


def test_the_invited_choose_a_password_by_the_printed_link_once(client):
    told = user_command("add", "carol", "--tokens", "25")
    assert not User.objects.get().has_usable_password()
    assert Account.objects.get().balance == 25
    choose_password(client, told)
    assert client.login(username="carol", password=PASSWORD)
    again = client.get(LINK.search(told)[1], follow=True)
    assert b'name="new_password1"' not in again.content


def test_with_a_mail_server_the_link_is_mailed_and_not_printed(client, with_mail):
    told = user_command("add", "carol", "--email", "carol@example.com")
    assert not LINK.search(told)
    (sent,) = mail.outbox
    assert sent.to == ["carol@example.com"] and "carol" in sent.body
    choose_password(client, sent.body)
    assert client.login(username="carol", password=PASSWORD)


def test_a_mail_server_that_is_down_holds_nobody_up(with_mail, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1  # nothing listens there
    told = user_command("add", "carol", "--email", "carol@example.com")
    assert "did not take it" in told and LINK.search(told)


def test_a_role_comes_with_its_group_and_a_key_of_its_scope():
    told = user_command("add", "olaf", "--role", "operator", "--key")
    olaf = User.objects.get()
    assert olaf.is_staff and not olaf.is_superuser
    assert [group.name for group in olaf.groups.all()] == ["operator"]
    key = keys.find(re.search(r"js_\S+", told)[0])
    assert (key.owner, key.scope) == (olaf, "operator")


@pytest.mark.parametrize(
    "arguments",
    [
        ["add", "ann"],  # is there
        ["add", "a b"],
        ["add", ""],
        ["add", "forgotten-7"],
        ["add", "carol", "--email", "nothing"],
        ["add", "carol", "--email", "a@example.com\nBcc: b@example.com"],
        ["add", "carol", "--tokens", "-1"],
        ["add", "carol", "--tokens", "1000000000001"],
        ["add", "carol", "--role", "god"],
        ["invite", "nobody"],
        ["deactivate", "nobody"],
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(ann, arguments):
    with pytest.raises(CommandError):
        user_command(*arguments)
    assert User.objects.count() == 1 and not ApiKey.objects.exists() and not mail.outbox


def test_the_list_says_what_each_has(ann, op, submit):  # noqa: F811
    submit()
    keys.issue(ann, "laptop")
    rows = {row["name"]: row for row in json.loads(user_command("list", "--json"))}
    assert (rows["ann"]["tokens"], rows["ann"]["live_jobs"], rows["ann"]["keys"]) == (990, 1, 1)
    assert rows["op"]["role"] == "superuser"
    assert re.search(r"^ann .* active +990 +1 +1", user_command("list"), re.MULTILINE)


# --- shut out ------------------------------------------------------------------------------------------------------


def test_who_is_shut_out_has_no_key_no_session_and_no_way_in(ann, client):
    with_key = ApiClient(ann)
    client.force_login(ann)
    assert with_key.get("/api/jobs/").status_code == client.get("/api/jobs/").status_code == 200
    user_command("deactivate", "ann")
    assert with_key.get("/api/jobs/").status_code == client.get("/api/jobs/").status_code == 401
    assert not client.login(username="ann", password="ann-password")
    with pytest.raises(CommandError, match="activate ann"):
        user_command("invite", "ann")
    user_command("activate", "ann")
    assert with_key.get("/api/jobs/").status_code == 200
    assert client.login(username="ann", password="ann-password")


def test_jobs_of_who_is_shut_out_go_on_and_stay_paid(ann, submit, running):  # noqa: F811
    lease = running()
    waiting = submit()
    assert "2 go on" in user_command("deactivate", "ann")
    lifecycle.succeed(lease, [])
    assert lifecycle.claim("cpu").job_id == waiting.pk
    ann.account.refresh_from_db()
    assert ann.account.balance == 980


def test_or_are_cancelled_and_refunded(ann, submit, running):  # noqa: F811
    running()
    submit()
    assert "2 cancelled, 0 go on" in user_command("deactivate", "ann", "--cancel-jobs")
    assert set(Job.objects.values_list("status", flat=True)) == {Status.CANCELED}
    ann.account.refresh_from_db()
    assert ann.account.balance == 1000


# --- in the admin ---------------------------------------------------------------------------------------------------


def form(**fields) -> dict:
    return {"_form_submitted": "True", "username": "carol", "email": "", "role": "", "tokens": "0", **fields}


def test_an_invitation_to_an_address_that_no_mail_can_have_is_a_link_all_the_same(user, settings):
    settings.MAIL = True
    invited = people.invite(user("carol", email="carol@\u200d.org"))
    assert invited.link and not invited.mailed and "UnicodeError" in invited.why


def test_the_admin_invites_and_shows_the_link_once(op, client):
    client.force_login(op)
    answer = client.post(reverse("admin:auth_user_invite"), form(tokens="5", role="viewer"))
    carol = User.objects.get(username="carol")
    assert carol.account.balance == 5 and carol.is_staff
    choose_password(client, answer.content.decode())
    assert client.login(username="carol", password=PASSWORD)


def test_what_the_admin_may_not_invite_is_said_in_the_form(op, ann, client):
    client.force_login(op)
    for wrong in (
        {"username": "ann"},
        {"username": "a b"},
        {"email": "x"},
        {"tokens": "-1"},
        {"tokens": str(10**13)},
        {"role": "god"},
    ):
        answer = client.post(reverse("admin:auth_user_invite"), form(**wrong))
        assert answer.status_code == 200 and b"invitation" not in answer.content
    assert not User.objects.filter(username="carol").exists()


def test_the_admin_shuts_out_and_lets_in(op, ann, client, submit):  # noqa: F811
    job = submit()
    client.force_login(op)
    client.post(reverse("admin:auth_user_shut_out", args=[ann.pk]), {"_form_submitted": "True", "cancel_jobs": "on"})
    ann.refresh_from_db()
    assert not ann.is_active and Job.objects.get(pk=job.pk).status == Status.CANCELED
    client.post(reverse("admin:auth_user_let_in", args=[ann.pk]), {"_form_submitted": "True"})
    ann.refresh_from_db()
    assert ann.is_active


def test_a_clerk_makes_nobody_mightier_and_touches_no_staff(user, op, ann, client):
    from django.contrib.auth.models import Permission

    clerk = user("clerk", is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(content_type__app_label="auth"))
    client.force_login(clerk)
    page = client.get(reverse("admin:auth_user_change", args=[ann.pk])).content
    assert b'name="email"' in page and b'name="is_superuser"' not in page and b'name="groups"' not in page
    client.post(reverse("admin:auth_user_change", args=[ann.pk]), {"username": "ann", "is_superuser": "on"})
    ann.refresh_from_db()
    assert not ann.is_superuser and not ann.is_staff
    for victim in (op, clerk):
        client.post(reverse("admin:auth_user_password_change", args=[victim.pk]), {"password1": "x", "password2": "x"})
        client.post(reverse("admin:auth_user_shut_out", args=[victim.pk]), {"_form_submitted": "True"})
        sent = client.post(reverse("admin:auth_user_send_link", args=[victim.pk]), {"_form_submitted": "True"})
        assert b"invitation" not in sent.content
    client.post(reverse("admin:auth_user_invite"), form(role="admin"))
    client.post(reverse("admin:auth_user_invite"), form(tokens="5"))
    assert User.objects.filter(is_active=True).count() == 3
    op.refresh_from_db()
    assert op.check_password("op-password")


# --- their own account -----------------------------------------------------------------------------------------------


def test_a_user_chooses_name_and_mail_on_the_account_page(ann, bob, client):
    client.force_login(ann)
    page = reverse("web:account")
    assert b'name="mail_after" value="5"' in client.get(page).content
    chosen = {"first_name": "<b>Ann</b>", "last_name": "", "mail_failed": "on", "mail_after": "0", "low_balance": "50"}
    assert client.post(page, chosen).status_code == 302
    shown = client.get(page).content
    assert b"&lt;b&gt;Ann" in shown and b"<b>Ann" not in shown and b'value="50"' in shown
    stored = Preference.objects.get()
    assert (stored.owner, stored.mail_finished, stored.mail_failed, stored.mail_after) == (ann, False, True, 0)
    wrong = client.post(page, chosen | {"low_balance": "-1", "owner": bob.pk, "is_staff": "on"})
    assert wrong.status_code == 200
    ann.refresh_from_db()
    assert not ann.is_staff and Preference.objects.get().low_balance == 50
