"""Webhooks by the API: Ann makes, watches, rotates and replays hers; nobody else sees them; a secret is shown once."""

import uuid
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from jobs import lifecycle, webhook_sender, webhooks
from jobs.api import objects
from jobs.engines import outbound
from jobs.models import Delivery, Endpoint
from tests.clients import codes
from tests.receiver import receiver, status

pytestmark = pytest.mark.django_db
PATH = "/api/webhooks/"
URL = "https://studio.example.com/jobsite?token=t0ken"


@pytest.fixture
def made(as_ann):
    """What Ann was answered when she made a webhook."""
    answer = as_ann.send(PATH, {"url": URL, "description": "mine", "types": ["job.failed", "job.failed"]})
    assert answer.status_code == 201, answer.content
    return answer.json()


def test_a_webhook_is_made_shown_changed_and_removed(as_ann, made):
    assert made["secret"].startswith("whsec_") and made["types"] == ["job.failed"] and made["muted"] is None
    path = f"{PATH}{made['id']}/"
    shown = as_ann.get(path).json()
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    assert as_ann.get(PATH).json()["results"] == [shown]
    changed = as_ann.send(path, {"url": "https://b.example.com:8443/", "types": []}, method="PATCH").json()
    assert (changed["url"], changed["types"], changed["description"]) == ("https://b.example.com:8443/", [], "mine")
    assert as_ann.delete(path).status_code == 204 and as_ann.get(path).status_code == 404


def test_the_secret_is_shown_once(as_ann, made):
    path = f"{PATH}{made['id']}/"
    rotated = as_ann.send(f"{path}rotate/").json()
    assert rotated["secret"] not in (made["secret"], None) and rotated["old_secret_until"]
    test = as_ann.send(f"{path}test/").json()
    later = [path, PATH, f"{path}deliveries/", test["urls"]["self"].removeprefix("http://testserver")]
    for answer in [as_ann.get(address) for address in later] + [as_ann.send(path, {"enabled": False}, method="PATCH")]:
        assert answer.status_code == 200
        assert b"whsec_" not in answer.content and rotated["secret"][6:].encode() not in answer.content


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, {"url": "required"}),
        ({"url": "http://studio.example.com/"}, {"url": "not_allowed"}),
        ({"url": "https://127.0.0.1/"}, {"url": "not_allowed"}),
        ({"url": "https://user:word@example.com/"}, {"url": "not_allowed"}),
        ({"url": "https://example.com:22/"}, {"url": "not_allowed"}),
        ({"url": "https://xn--/"}, {"url": "not_allowed"}),
        ({"url": "https://example.com/" + "é" * 100}, {"url": "not_allowed"}),  # six times as long when it is sent
        ({"url": "https://e.com/" + "x" * 500}, {"url": "max_length"}),
        ({"url": URL, "types": ["job.started"]}, {"types.0": "invalid_choice"}),
        (
            {"url": URL, "owner": 1, "salt": "x", "muted": ""},
            dict.fromkeys(("owner", "salt", "muted"), "unknown_field"),
        ),
    ],
)
def test_what_cannot_be_a_webhook(as_ann, body, wrong):
    answer = as_ann.send(PATH, body)
    assert (answer.status_code, codes(answer)) == (400, wrong)
    assert not Endpoint.objects.exists()


def test_an_account_has_so_many(as_ann, as_bob, settings):
    settings.JOBSITE = {**settings.JOBSITE, "WEBHOOKS_PER_USER": 2}
    assert [as_ann.send(PATH, {"url": URL}).status_code for _ in range(3)] == [201, 201, 409]
    assert as_bob.send(PATH, {"url": URL}).status_code == 201


def test_a_test_is_sent_and_logged_and_replayed(as_ann, settings):
    settings.JOBSITE = {**settings.JOBSITE, "WEBHOOK_NETWORKS": outbound.LOOPBACK}
    with receiver() as got:
        got.says = status(500, b"<script>alert(1)</script>")
        made = as_ann.send(PATH, {"url": got.url}).json()
        path = f"{PATH}{made['id']}/"
        sent = as_ann.send(f"{path}test/")
        assert sent.status_code == 202 and sent.json()["state"] == "owed"
        webhook_sender.deliver()
        (line,) = as_ann.get(f"{path}deliveries/?state=owed").json()["results"]
        assert (line["tries"][0]["status"], line["tries"][0]["excerpt"]) == (500, "<script>alert(1)</script>")
        Delivery.objects.update(next_at=None)  # as if given up
        assert as_ann.send(f"{path}replay/", {"since": (timezone.now() - timedelta(hours=1)).isoformat()}).json() == {
            "replayed": 1
        }
        got.says = status(200)
        webhook_sender.deliver()
        (line,) = as_ann.get(f"{path}deliveries/?state=delivered").json()["results"]
        assert len(line["tries"]) == 2 and got.ids == [line["webhook_id"]] * 2
        again = f"{path}deliveries/{line['id']}/replay/"
        assert as_ann.send(again).json()["state"] == "owed"
        webhook_sender.deliver()
        assert [message["type"] for message in got.verified(made["secret"])] == ["webhook.test"] * 3
        body = as_ann.get(f"{path}deliveries/{line['id']}/").json()["body"]
        assert body == got.got[0][1]


def test_a_muted_one_says_so_and_sends_nothing_until_it_is_switched_on(as_ann, made, submit):
    path = f"{PATH}{made['id']}/"
    webhooks.mute(made["id"], "gone")
    assert as_ann.get(path).json()["muted"] == "gone"
    lifecycle.cancel(submit().pk, by="test")
    Endpoint.objects.update(types=[])
    webhooks.owe(lambda jobs: objects.many(None, jobs))
    (held,) = as_ann.get(f"{path}deliveries/?state=failed").json()["results"]
    for action in ("test/", f"deliveries/{held['id']}/replay/"):
        answer = as_ann.send(path + action)
        assert (answer.status_code, answer.json()["code"]) == (409, "webhook_muted")
    assert as_ann.send(path, {"enabled": True}, method="PATCH").json()["muted"] is None
    assert as_ann.send(f"{path}deliveries/{held['id']}/replay/").status_code == 202


@pytest.mark.parametrize("query", ["state=lost", "states=failed", "limit=0"])
def test_queries_that_nobody_would_read(as_ann, made, query):
    assert as_ann.get(f"{PATH}{made['id']}/deliveries/?{query}").status_code == 400


def test_test_messages_are_bounded(as_ann, made):
    """They cost nothing, and each is a row for thirty days."""
    answers = [as_ann.send(f"{PATH}{made['id']}/test/") for _ in range(webhooks.TESTS + 1)]
    assert [answer.status_code for answer in answers] == [202] * webhooks.TESTS + [429]
    assert answers[-1].headers["Retry-After"] == "60"
    for delivery in Delivery.objects.all():  # a minute later
        earlier = uuid.UUID(int=delivery.pk.int - (60_000 << 80))
        Delivery.objects.filter(pk=delivery.pk).update(id=earlier)
    assert as_ann.send(f"{PATH}{made['id']}/test/").status_code == 202


def test_they_are_anns_alone(as_ann, as_bob, as_op, made):
    as_ann.send(f"{PATH}{made['id']}/test/")
    for other in (as_bob, as_op):
        assert other.get(PATH).json()["results"] == []
        assert other.get(f"{PATH}{made['id']}/").status_code == 404
        assert other.send(f"{PATH}{made['id']}/rotate/").status_code == 404
    assert as_ann.get(f"{PATH}{made['id']}/deliveries/").json()["results"]
    other = as_ann.send(PATH, {"url": URL}).json()  # hers, but not of this webhook
    delivery = Delivery.objects.get()
    assert as_ann.get(f"{PATH}{other['id']}/deliveries/{delivery.pk}/").status_code == 404


def test_the_log_pages(as_ann, made):
    endpoint = Endpoint.objects.get()
    for _ in range(3):
        webhooks.send_test(endpoint)
    Delivery.objects.update(next_at=Now())
    first = as_ann.get(f"{PATH}{made['id']}/deliveries/?limit=2").json()
    second = as_ann.get(first["next"]).json()
    assert len(first["results"]) == 2 and len(second["results"]) == 1 and second["next"] is None
