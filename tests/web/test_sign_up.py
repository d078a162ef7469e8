"""Open sign-up: off unless asked for; nothing exists before the address is proven; tokens once for an address."""

import re
import threading

import pytest
from django.contrib.auth import get_user_model
from django.core import mail, signing
from django.db import connections
from django.test import Client
from django.urls import reverse

from jobs import erasure, keys, sign_up, throttles
from jobs.models import Throttle
from tests import invariants
from tests.web.test_pages import text, web
from tokens.models import Account, Transaction

pytestmark = pytest.mark.django_db
User = get_user_model()
ASK = "/sign-up/"
WORD = "a-quiet-harbour-7"
PASSWORDS = {"password1": WORD, "password2": WORD}


@pytest.fixture
def opened(settings):
    """Sign-up as its operator would open it."""
    settings.MAIL = True
    settings.JOBSITE = {**settings.JOBSITE, "SIGN_UP": "open", "SIGN_UP_TOKENS": 25}
    return settings


def asks(client: Client, name: str = "carol", email: str = "carol@example.com", **more):
    return client.post(ASK, {"username": name, "email": email}, **more)


def link() -> str:
    """The path of the last letter's link."""
    return re.search(r"http\S+?(/sign-up/\S+)", str(mail.outbox[-1].body))[1]


def joins(client: Client, path: str, name: str = "carol", **more):
    return client.post(path, {"username": name, **PASSWORDS, **more})


def grants() -> list[tuple]:
    return list(Transaction.objects.filter(kind="GRANT", reason="signed up").values_list("account_id", "amount"))


# --- off ------------------------------------------------------------------------------------------------------------


def test_it_is_off_unless_asked_for(client, settings):
    settings.MAIL = True
    token = signing.dumps(["carol", "carol@example.com"], salt=sign_up.SALT)
    for path in (ASK, f"{ASK}sent/", f"{ASK}{token}/"):
        assert client.get(path).status_code == client.post(path, PASSWORDS | {"username": "carol"}).status_code == 404
    assert not User.objects.exists() and not mail.outbox and not Throttle.objects.exists()
    assert ASK not in text(client.get(web("sign-in")))


# --- the way of an honest one ---------------------------------------------------------------------------------------


def test_a_letter_a_password_an_account_with_its_tokens(client, opened):
    assert ASK in text(client.get(web("sign-in")))
    assert "Until you use it there is no account" in text(client.get(ASK))
    assert asks(client)["Location"] == reverse("web:sign-up-sent")
    assert mail.outbox[0].to == ["carol@example.com"] and not User.objects.exists() and not grants()
    page = text(client.get(link()))
    assert 'value="carol"' in page and not User.objects.exists()  # a mail program that looks at links makes nothing
    done = joins(client, link())
    assert done["Location"] == web("sign-in") and "Your account is made, carol" in text(client.get(done["Location"]))
    carol = User.objects.get()
    assert (carol.email, carol.is_staff, carol.is_superuser, carol.is_active) == (
        "carol@example.com",
        False,
        False,
        True,
    )
    assert grants() == [(carol.pk, 25)]
    assert client.post(web("sign-in"), {"username": "carol", "password": WORD})["Location"] == web("jobs")
    assert '<b id="balance">25</b> tokens' in text(client.get(web("tokens")))
    assert client.get(ASK)["Location"] == web("jobs")
    invariants.check(files=False)


def test_without_tokens_nothing_is_booked(client, opened):
    opened.JOBSITE = {**opened.JOBSITE, "SIGN_UP_TOKENS": 0}
    asks(client)
    joins(client, link())
    assert Account.objects.get().balance == 0 and not Transaction.objects.exists()


def test_a_wrong_form_stays_and_a_taken_name_is_told_behind_the_link_alone(client, opened, ann):
    for name, email in (
        ("", "c@example.com"),
        ("carol", "nowhere"),
        ("a b", "c@example.com"),
        ("forgotten-7", "c@x.de"),
    ):
        assert 'class="error"' in text(asks(client, name, email))
    assert not mail.outbox
    for name in ("ann", "Ann"):
        assert asks(client, name).status_code == 302
        page = text(joins(client, link(), name))
        assert 'class="error"' in page and User.objects.get() == ann
    assert "This password is too short" in text(joins(client, link(), password1="x", password2="x"))
    assert "similar to the user" in text(joins(client, link(), password1="carol-1", password2="carol-1"))
    assert "match" in text(joins(client, link(), password2="another-harbour-8"))
    assert joins(client, link(), "carol").status_code == 302


# --- attacks --------------------------------------------------------------------------------------------------------


def test_the_answer_is_the_same_whoever_has_name_and_address(client, opened, user):
    user("ann", email="ann@example.com")
    user("gone", email="gone@example.com", is_active=False)
    user("idle", email="idle@example.com").set_unusable_password()
    answers, read = set(), []
    for name, email in (
        ("new", "new@example.com"),
        ("ann", "other@example.com"),
        ("other", "ann@example.com"),
        ("other", "ANN@example.com"),
        ("gone", "gone@example.com"),
        ("idle", "idle@example.com"),
    ):
        sent = len(mail.outbox)
        answer = asks(client, name, email, follow=True)
        answers.add((str(answer.redirect_chain), re.sub(r'value="\w{64}"', "", text(answer))))
        read.append(len(mail.outbox) - sent)
    assert len(answers) == 1 and read == [1] * 6  # one letter each: no clock of a mail server tells
    assert "your name there is ann" in mail.outbox[3].body and mail.outbox[3].to == ["ann@example.com"]
    assert not re.search("/sign-up/", "".join(str(letter.body) for letter in mail.outbox[2:4]))


def test_who_was_invited_and_lost_the_letter_gets_it_again(client, opened, user):
    idle = user("idle", email="idle@example.com")
    idle.set_unusable_password()
    idle.save()
    asks(client, "me", "idle@example.com")
    assert "/password-reset/" in mail.outbox[0].body and "idle" in mail.outbox[0].body


def test_a_lookalike_of_an_address_gets_no_letter_about_its_owner(opened, user):
    """CVE-2019-19844: a database may hold two addresses for equal that are two mailboxes."""
    user("mike", email="mike@example.org")
    sign_up.ask("mike2", "m\u0131ke@example.org")
    letter = mail.outbox[0]
    assert ("your name there" in letter.body) == (letter.to == ["mike@example.org"])


def test_a_link_is_used_once_forged_by_nobody_and_ends(client, opened, monkeypatch):
    asks(client)
    used = link()
    assert joins(client, used).status_code == 302
    assert joins(client, used, "carol2").status_code == client.get(used).status_code == 404
    asks(client, "dave", "dave@example.com")
    daves = link()
    for path in (
        f"{ASK}nonsense/",
        daves[:-2] + "x/",
        f"{ASK}{signing.dumps(['eve', 'eve@example.com'])}/",
        f"{ASK}{signing.dumps(['eve', 'eve@example.com'], salt=sign_up.SALT, key='another')}/",
    ):
        assert joins(client, path, "eve").status_code == 404
    opened.PASSWORD_RESET_TIMEOUT = -1
    assert joins(client, daves, "dave").status_code == 404
    assert User.objects.count() == 1 and len(grants()) == 1


def test_two_links_of_one_address_are_one_account_and_one_grant(client, opened):
    asks(client)
    first = link()
    asks(client, "carol2", "Carol@example.com")
    assert joins(client, first).status_code == 302
    assert joins(client, link(), "carol2").status_code == 404
    assert len(grants()) == User.objects.count() == 1


def test_an_address_that_was_forgotten_gets_no_second_tokens(client, opened, user):
    asks(client)
    joins(client, link())
    erasure.forget(User.objects.get(), by="test")
    asks(client, "again")
    assert joins(client, link(), "again").status_code == 302
    assert len(grants()) == 1 and Account.objects.get(user__username="again").balance == 0


def test_nothing_can_be_done_before_the_address_is_proven(client, opened):
    asks(client)
    assert client.post(web("sign-in"), {"username": "carol", "password": ""}).status_code == 200
    client.post(web("reset"), {"email": "carol@example.com"})
    assert len(mail.outbox) == 1 and not User.objects.exists() and not Account.objects.exists()


def test_no_field_makes_staff_or_tokens(client, opened):
    asks(client)
    more = {"is_staff": "on", "is_superuser": "on", "role": "admin", "tokens": "9", "email": "eve@example.com"}
    joins(client, link(), **more)
    carol = User.objects.get()
    assert not carol.is_staff and not carol.is_superuser and carol.email == "carol@example.com"
    assert Account.objects.get().balance == 25 and not carol.groups.exists()
    assert keys.issue(carol, "mine")[0].scope == "user"


def test_one_address_gets_few_letters_whoever_asks_from_wherever(client, opened):
    seen = [asks(client, REMOTE_ADDR=f"203.0.113.{number}").status_code for number in range(6)]
    assert seen == [302] * 3 + [429] * 3 and len(mail.outbox) == 3
    refused = asks(client, email="CAROL@example.com", REMOTE_ADDR="203.0.113.99")
    assert refused.status_code == 429 and 1000 < int(refused["Retry-After"]) <= 1200


def test_one_machine_asks_so_often_for_many_addresses(client, opened, monkeypatch):
    monkeypatch.setattr(throttles, "OF_ADDRESS", (throttles.Clock(30, 30_000), throttles.OF_ADDRESS[1]))
    seen = [asks(client, "n", f"n{number}@example.com").status_code for number in range(32)]
    assert seen == [302] * 30 + [429] * 2 and len(mail.outbox) == 30


def test_names_are_not_tried_in_numbers_behind_a_link(client, opened, ann):
    asks(client)
    seen = [joins(client, link(), "ann").status_code for _ in range(12)]
    assert seen == [200] * 10 + [429] * 2


def test_another_site_signs_nobody_up(opened):
    browser = Client(enforce_csrf_checks=True)
    assert asks(browser).status_code == 403 and not mail.outbox


def test_links_lead_to_the_site_whatever_host_asked(client, opened):
    asks(client, HTTP_HOST="127.0.0.1")
    assert f"{opened.SITE_URL}/sign-up/" in mail.outbox[0].body
    assert asks(client, HTTP_HOST="evil.example").status_code == 400 and len(mail.outbox) == 1


def test_a_mail_server_that_is_away_is_told_and_nobody_exists(client, opened):
    opened.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    opened.EMAIL_HOST, opened.EMAIL_PORT = "127.0.0.1", 1
    answer = asks(client)
    assert answer.status_code == 502 and "did not take the letter" in text(answer) and not User.objects.exists()


def test_an_address_that_no_mail_can_have_is_told(client, opened):
    answer = asks(client, email="carol@\u200d.org")
    assert answer.status_code == 502 and "did not take the letter" in text(answer)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "asked",
    [
        [("carol", f"carol{number % 2}@example.com") for number in range(6)],
        [(f"carol{number}", "carol@example.com") for number in range(6)],
        [("carol"[:number] + "carol"[number:].upper(), f"carol{number}@example.com") for number in range(6)],
    ],
    ids=["one name", "one address", "one name in six ways"],
)
def test_many_at_once_with_one_name_or_one_address_are_one_account(opened, asked):
    tokens = [signing.dumps(pair, salt=sign_up.SALT) for pair in asked]
    gate, answers = threading.Barrier(6), []

    def act(token: str) -> None:
        browser = Client(raise_request_exception=False)
        gate.wait()
        try:
            answers.append(joins(browser, f"{ASK}{token}/", signing.loads(token, salt=sign_up.SALT)[0]).status_code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=act, args=[token]) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {200, 302, 404} and len(answers) == 6
    assert answers.count(302) == User.objects.count() == len(grants()) == 1
