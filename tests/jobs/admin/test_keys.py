"""API keys in the admin: the secret is shown once and stored nowhere; a clerk cannot make themselves an admin."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.contrib.sessions.models import Session
from django.urls import reverse

from jobs import keys
from jobs.models import ApiKey

ISSUE = "admin:jobs_apikey_issue"


def form(username: str, **more) -> dict:
    return {"_form_submitted": "True", "username": username, "name": "laptop", "scope": "user", **more}


@pytest.fixture
def clerk(user):
    person = user("clerk", tokens=0, is_staff=True)
    wanted = ["view_apikey", "add_apikey", "change_apikey"]
    person.user_permissions.set(Permission.objects.filter(codename__in=wanted))
    return person


def secret_in(answer) -> str:
    return answer.content.decode().partition('<code id="issued-key">')[2].partition("<")[0]


def test_the_secret_is_shown_once_and_works(client, op, ann):
    client.force_login(op)
    answer = client.post(reverse(ISSUE), form("ann", days="30"))
    secret = secret_in(answer)
    key = ApiKey.objects.get()
    assert keys.find(secret) == key and key.owner == ann and key.expires_at is not None
    assert "no-store" in answer["Cache-Control"] and not list(get_messages(answer.wsgi_request))
    assert secret not in client.get(reverse("admin:jobs_apikey_changelist")).content.decode()
    assert secret not in client.get(reverse("admin:jobs_apikey_change", args=[key.pk])).content.decode()
    kept = str(list(LogEntry.objects.values())) + str([session.get_decoded() for session in Session.objects.all()])
    assert secret not in kept and "Issued to ann" in kept


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"username": "nobody"}, "no active user"),
        ({"name": ""}, "required"),
        ({"scope": "root"}, "valid choice"),
        ({"days": "0"}, "greater than or equal to 1"),
    ],
)
def test_a_wrong_form_issues_nothing(client, op, ann, wrong, told):
    client.force_login(op)
    answer = client.post(reverse(ISSUE), form("ann") | wrong)
    assert told in answer.content.decode() and not ApiKey.objects.exists()


@pytest.mark.parametrize(("owner", "scope", "made"), [("ann", "user", 1), ("ann", "admin", 0), ("op", "user", 0)])
def test_a_clerk_issues_customers_keys_only(client, clerk, ann, op, owner, scope, made):
    client.force_login(clerk)
    client.post(reverse(ISSUE), form(owner, scope=scope))
    assert ApiKey.objects.count() == made


def test_staff_without_the_permission_issue_and_revoke_nothing(client, user, ann):
    key, secret = keys.issue(ann, "laptop")
    seer = user("seer", tokens=0, is_staff=True)
    seer.user_permissions.set(Permission.objects.filter(codename="view_apikey"))
    client.force_login(seer)
    assert client.post(reverse(ISSUE), form("ann")).status_code == 403
    revoke = reverse("admin:jobs_apikey_revoke_one", args=[key.pk])
    assert client.post(revoke, {"_form_submitted": "True"}).status_code == 403
    client.post(reverse("admin:jobs_apikey_changelist"), {"action": "revoke", "_selected_action": [key.pk]})
    assert keys.find(secret) == key and ApiKey.objects.count() == 1


def test_revoked_is_revoked_and_the_first_time_stays(client, clerk, ann):
    client.force_login(clerk)
    (one, secret), (two, _) = keys.issue(ann, "one"), keys.issue(ann, "two")
    client.post(reverse("admin:jobs_apikey_revoke_one", args=[one.pk]), {"_form_submitted": "True"})
    assert keys.find(secret) is None
    first = ApiKey.objects.get(pk=one.pk).revoked_at
    both = {"action": "revoke", "_selected_action": [one.pk, two.pk]}
    answer = client.post(reverse("admin:jobs_apikey_changelist"), both)
    assert "Revoked 1 of 2 keys" in str(list(get_messages(answer.wsgi_request))[-1])
    assert ApiKey.objects.get(pk=one.pk).revoked_at == first
    assert LogEntry.objects.filter(user=clerk).count() == 2
