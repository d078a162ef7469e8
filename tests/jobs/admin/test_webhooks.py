"""The operator sees whose webhooks fare how, mutes, unmutes and sends again; neither address nor secret."""

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from jobs import webhooks
from jobs.models import Delivery, Endpoint, Muted

pytestmark = pytest.mark.django_db


@pytest.fixture
def page(client, op):
    """page("endpoint") → the list's address, for Op."""
    client.force_login(op)
    return lambda model: reverse(f"admin:jobs_{model}_changelist")


@pytest.fixture
def hook(ann):
    return webhooks.create(ann.pk, url="https://studio.example.com/private-path?token=t0ken")[0]


def act(client, path: str, name: str, row) -> str:
    answer = client.post(path, {"action": name, "_selected_action": [str(row.pk)]}, follow=True)
    return answer.content.decode()


def test_hosts_are_shown_and_no_address_or_secret(client, page, hook):
    delivery = webhooks.send_test(hook)
    Delivery.objects.update(
        log=[{"at": "x", "status": 500, "seconds": 1, "error": "<b>bad</b>", "excerpt": "<i>no</i>"}]
    )
    for model, row in (("endpoint", hook), ("delivery", delivery)):
        for path in (page(model), reverse(f"admin:jobs_{model}_change", args=[row.pk])):
            html = client.get(path).content.decode()
            assert "studio.example.com" in html, path
            for word in ("private-path", "t0ken", "whsec_", hook.salt, "<b>bad</b>", "<i>no</i>"):
                assert word not in html, (path, word)


def test_the_first_screen_counts_the_muted_and_leads_to_them(client, page, hook, ann):
    webhooks.create(ann.pk, url="https://other.example.com/")
    webhooks.mute(hook.pk, Muted.FAILING)
    board = client.get(reverse("admin:index")).content.decode()
    path = re.search(r'href="([^"]*)">1 webhook endpoint muted', board)[1]
    assert [row.pk for row in client.get(path).context["cl"].result_list] == [hook.pk]


def test_muted_unmuted_and_sent_again(client, page, hook, op):
    delivery = webhooks.send_test(hook)
    assert "Muted: 1" in act(client, page("endpoint"), "mute", hook)
    assert Endpoint.objects.get().muted == Muted.OFF and Delivery.objects.get().state == "failed"
    assert "Sent again: 0" in act(client, page("delivery"), "replay", delivery)
    assert "Unmuted: 1" in act(client, page("endpoint"), "unmute", hook)
    assert "Unmuted: 0" in act(client, page("endpoint"), "unmute", hook)
    assert "Sent again: 1" in act(client, page("delivery"), "replay", delivery)
    assert Delivery.objects.get().state == "owed"
    assert LogEntry.objects.filter(user=op).count() == 3


@pytest.mark.parametrize(("query", "found"), [("muted=gone", 1), ("muted=off", 0), ("", 1)])
def test_filters(client, page, hook, query, found):
    webhooks.mute(hook.pk, Muted.GONE)
    html = client.get(f"{page('endpoint')}?{query}").content.decode()
    assert html.count(str(hook.pk)) >= 1 if found else str(hook.pk) not in html
    assert client.get(f"{page('delivery')}?state=failed").status_code == 200
