"""The pages of webhooks: what their owner sees and does there, without JavaScript; nobody else finds them."""

import pytest
from django.urls import reverse
from django.utils.html import escape

from jobs import webhook_sender, webhooks
from jobs.engines import outbound
from jobs.models import Delivery, Endpoint, Muted
from tests.receiver import receiver, status

pytestmark = pytest.mark.django_db
LIST = "/my/webhooks/"


def text(answer) -> str:
    assert answer.status_code == 200, answer.status_code
    return answer.content.decode()


@pytest.fixture
def got(settings):
    settings.JOBSITE = {**settings.JOBSITE, "WEBHOOK_NETWORKS": outbound.LOOPBACK}
    with receiver() as server:
        yield server


@pytest.fixture
def made(ann_web, got):
    """Ann's webhook, made by its form, and the secret that the answer showed."""
    page = text(ann_web.post(LIST, {"url": got.url, "description": "mine", "types": ["job.failed"]}))
    secret = page.partition('id="secret">')[2].partition("<")[0]
    return Endpoint.objects.get(), secret


def test_it_is_made_and_its_secret_shown_once(ann_web, made):
    endpoint, secret = made
    assert secret == webhooks.secret_of(endpoint.salt) and endpoint.types == ["job.failed"]
    path = reverse("web:webhook", args=[endpoint.pk])
    for page in (text(ann_web.get(LIST)), text(ann_web.get(path))):
        assert "whsec_" not in page.replace(f"whsec_…{endpoint.hint}", "") and endpoint.url in page
    rotated = ann_web.post(f"{path}rotate/")
    assert "no-store" in rotated["Cache-Control"]
    assert webhooks.secret_of(Endpoint.objects.get().salt) in text(rotated).replace("&#x27;", "'")
    assert "the one before signs, too" in text(ann_web.get(path))


@pytest.mark.parametrize("url", ["http://example.com/", "https://127.1/", "https://10.0.0.1/", "https://a:22/", ""])
def test_where_it_may_not_lead(ann_web, url):
    assert 'class="error"' in text(ann_web.post(LIST, {"url": url}))
    assert not Endpoint.objects.exists()


def test_address_and_events_are_changed_as_by_the_api(ann_web, made, got):
    endpoint, secret = made
    path = reverse("web:webhook", args=[endpoint.pk])
    page = text(ann_web.get(path))
    assert f'name="url" value="{endpoint.url}"' in page and page.count(" checked") == 1
    wanted = {"url": f"{got.url}?new", "description": "other", "types": ["job.succeeded", "job.canceled"]}
    assert "Saved." in text(ann_web.post(path, wanted, follow=True))
    changed = Endpoint.objects.get()
    assert (changed.url, changed.description) == (wanted["url"], "other")
    assert changed.types == ["job.canceled", "job.succeeded"]
    assert webhooks.secret_of(changed.salt) == secret  # what its receiver knows stays right
    assert "Saved." in text(ann_web.post(path, {"url": got.url}, follow=True))
    assert Endpoint.objects.get().types == []


@pytest.mark.parametrize("url", ["http://example.com/", "https://127.1/", "https://10.0.0.1/", "https://a:22/"])
def test_a_change_leads_nowhere_that_a_new_one_may_not(ann, ann_web, as_ann, url):
    endpoint, _ = webhooks.create(ann.pk, url="https://example.com/")
    page = text(ann_web.post(reverse("web:webhook", args=[endpoint.pk]), {"url": url, "types": ["job.failed"]}))
    told = as_ann.send(f"/api/webhooks/{endpoint.pk}/", {"url": url}, method="PATCH").json()["errors"][0]["detail"]
    assert 'class="error"' in page and escape(told) in page
    unchanged = Endpoint.objects.get()
    assert (unchanged.url, unchanged.types) == (endpoint.url, [])
    page = text(ann_web.post(reverse("web:webhook", args=[endpoint.pk]), {"url": "", "types": ["job.nothing"]}))
    assert page.count('class="error"') == 2 and Endpoint.objects.get().types == []


def test_a_test_is_sent_seen_and_sent_again(ann_web, made, got):
    endpoint, secret = made
    path = reverse("web:webhook", args=[endpoint.pk])
    got.says = status(500, b"<script>alert(1)</script>")
    assert "on its way" in text(ann_web.post(f"{path}test/", follow=True))
    webhook_sender.deliver()
    delivery = Delivery.objects.get()
    assert "Answered 500." in text(ann_web.get(f"{path}?state=owed"))
    log = text(ann_web.get(f"{path}{delivery.pk}/"))
    assert "&lt;script&gt;alert(1)" in log and "<script>alert" not in log and webhooks.message_id(delivery.pk) in log
    got.says = status(204)
    assert "sent again" in text(ann_web.post(f"{path}{delivery.pk}/replay/", follow=True))
    webhook_sender.deliver()
    assert len(got.verified(secret)) == 2 and "Taken" in text(ann_web.get(f"{path}{delivery.pk}/"))
    assert "No message is failed." in text(ann_web.get(f"{path}?state=failed"))


def test_why_it_is_muted_and_how_it_goes_on(ann_web, made):
    endpoint, _ = made
    path = reverse("web:webhook", args=[endpoint.pk])
    webhooks.send_test(endpoint)
    webhooks.mute(endpoint.pk, Muted.FAILING)
    page = text(ann_web.get(path))
    assert "its host took nothing for a day and longer" in page and "Send a test" not in page
    assert "Switch it on first." in text(ann_web.post(f"{path}test/", follow=True))
    assert "switched on" in text(ann_web.post(f"{path}switch/", follow=True))
    assert "1 message will be sent again." in text(ann_web.post(f"{path}replay/", follow=True))
    assert "switched off" in text(ann_web.post(f"{path}switch/", follow=True))
    ann_web.post(f"{path}delete/")
    assert not Endpoint.objects.exists()


def test_bob_finds_nothing_of_anns(ann_web, bob_web, made):
    endpoint, _ = made
    delivery = webhooks.send_test(endpoint)
    path = reverse("web:webhook", args=[endpoint.pk])
    assert "mine" not in text(bob_web.get(LIST))
    for address in (path, f"{path}{delivery.pk}/"):
        assert bob_web.post(address, {"url": "https://example.com/"}).status_code == 404
        assert bob_web.get(address).status_code == 404 and ann_web.get(address).status_code == 200
    for word in ("rotate", "test", "switch", "replay", "delete", f"{delivery.pk}/replay"):
        assert bob_web.post(f"{path}{word}/").status_code == 404
        assert ann_web.get(f"{path}{word}/").status_code == 405
    assert Endpoint.objects.filter(pk=endpoint.pk, salt=endpoint.salt, muted="", url=endpoint.url).exists()
