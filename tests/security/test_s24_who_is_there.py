"""S24: unknown, wrong and shut out are one answer and one way: no page tells who has an account, and no clock does."""

import pytest
from django.contrib.auth import hashers
from django.core import mail
from django.urls import reverse

from jobs import keys
from jobs.models import ApiKey
from tests.clients import ApiClient

pytestmark = pytest.mark.django_db


@pytest.fixture
def hashed(monkeypatch):
    """How many passwords were hashed so far: that is what takes the time of a sign-in."""
    times = []
    real = hashers.MD5PasswordHasher.encode

    def encode(self, password, salt):
        times.append(1)
        return real(self, password, salt)

    monkeypatch.setattr(hashers.MD5PasswordHasher, "encode", encode)
    return times


def shown(answer, *names: str) -> str:
    """What the visitor reads, without the name that was typed and the page's token."""
    text = answer.content.decode()
    for name in names:
        text = text.replace(name, "NAME")
    return "\n".join(line for line in text.splitlines() if "csrf" not in line)


@pytest.mark.parametrize("page", ["web:sign-in", "admin:login"])
def test_unknown_wrong_and_shut_out_are_the_same_answer_after_one_hash(client, user, hashed, page):
    user("ann")
    user("gone", is_active=False)
    user("idle").set_unusable_password()
    answers = []
    for name, password in (("ann", "wrong"), ("nobody", "wrong"), ("gone", "wrong"), ("gone", "gone-password")):
        hashed.clear()
        answer = client.post(reverse(page), {"username": name, "password": password})
        answers.append((answer.status_code, len(hashed), shown(answer, f'"{name}"')))
    assert answers == [answers[0]] * 4 and answers[0][:2] == (200, 1)


def test_the_reset_page_says_the_same_whoever_asks(client, user, settings):
    settings.MAIL = True
    user("ann", email="ann@example.com")
    user("gone", email="gone@example.com", is_active=False)
    answers = []
    for address in ("ann@example.com", "nobody@example.com", "gone@example.com"):
        answer = client.post(reverse("web:reset"), {"email": address}, follow=True)
        answers.append((answer.redirect_chain, shown(answer)))
    assert answers == [answers[0]] * 3
    assert [message.to for message in mail.outbox] == [["ann@example.com"]]


def test_a_wrong_key_an_old_one_and_one_of_who_is_shut_out_are_one_answer_and_one_look_up(
    ann, bob, django_assert_num_queries
):
    revoked, right = keys.issue(ann, "revoked")[1], keys.issue(bob, "right")[1]
    keys.revoke(ApiKey.objects.get(name="revoked"))
    type(bob).objects.filter(pk=bob.pk).update(is_active=False)
    told = set()
    for secret in ("js_unknown", revoked, right, right[:-1] + "x"):
        with django_assert_num_queries(1):
            assert keys.find(secret) is None
        answer = ApiClient(headers={"Authorization": f"Bearer {secret}"}).get("/api/jobs/")
        body = {name: value for name, value in answer.json().items() if name != "request_id"}
        told.add((answer.status_code, str(body)))
    assert len(told) == 1
