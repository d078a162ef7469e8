"""S25: a key that is revoked opens nothing more, and what it opened is closed: streams within five seconds, too."""

import threading
import time
from datetime import timedelta

import httpx
import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.utils import timezone

from jobs import keys
from jobs.api import hub
from jobs.models import ApiKey
from tests.jobs.api.test_events import client, live, secret  # noqa: F401 - fixtures
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
AT_MOST = 15.0  # seconds; five are the promise, and a busy machine adds to them


def test_the_clocks_keep_the_promise():
    assert hub.ACCESS_SECONDS + 2 * hub.TICK < 5


def revoked(ann, key, browser):
    keys.revoke(key)


def expired(ann, key, browser):
    ApiKey.objects.filter(pk=key.pk).update(expires_at=timezone.now() + timedelta(seconds=0.5))


def owner_deactivated(ann, key, browser):
    ann.is_active = False
    ann.save()


def logged_out(ann, key, browser):
    browser.logout()


def password_changed(ann, key, browser):
    ann.set_password("another one")
    ann.save()


@pytest.mark.parametrize("end", [revoked, expired, owner_deactivated])
@pytest.mark.parametrize("what", ["job", "all", "token"])
def test_a_keys_streams_end_with_it(end, what, live, ann, submit):  # noqa: F811
    """Without the hub's asking (`_ask_access` taken out) they go on until the timeout: seen so."""
    job = submit()
    key, secret = keys.issue(ann, "stolen")  # noqa: F811
    with live.client(secret) as thief:
        path = {"job": f"/api/jobs/{job.pk}/events/", "all": "/api/events/"}.get(what)
        if what == "token":
            path = thief.post(f"/api/jobs/{job.pk}/stream-token/").json()["url"].removeprefix(live.url)
        with live.events(thief, path) as events:
            next(events)
            began = time.monotonic()
            end(ann, key, None)
            assert list(events) == []
            assert time.monotonic() - began < AT_MOST
        assert thief.get(path).status_code == 401


@pytest.mark.parametrize("end", [logged_out, password_changed, owner_deactivated])
def test_a_sessions_streams_end_with_it(end, live, ann, submit):  # noqa: F811
    browser = Client()
    browser.force_login(ann)
    cookies = {"sessionid": browser.cookies["sessionid"].value}
    path = f"/api/jobs/{submit().pk}/events/"
    with httpx.Client(base_url=live.url, cookies=cookies) as session:
        with live.events(session, path) as events:
            next(events)
            began = time.monotonic()
            end(ann, None, browser)
            assert list(events) == []
            assert time.monotonic() - began < AT_MOST
        assert session.get(path).status_code in (401, 403)


def test_a_viewers_stream_of_anothers_job_ends_with_the_role(live, ann, user, submit):  # noqa: F811
    viewer = user("vera", is_staff=True)
    viewer.groups.add(Group.objects.get_or_create(name="viewer")[0])
    browser = Client()
    browser.force_login(viewer)
    cookies = {"sessionid": browser.cookies["sessionid"].value}
    path = f"/api/jobs/{submit().pk}/events/"
    with httpx.Client(base_url=live.url, cookies=cookies) as session, live.events(session, path) as events:
        next(events)
        viewer.groups.clear()
        assert list(events) == []


def test_others_streams_go_on(live, client, ann, submit, monkeypatch):  # noqa: F811
    monkeypatch.setattr(hub, "BEAT_SECONDS", 0.2)
    stolen, secret = keys.issue(ann, "stolen")  # noqa: F811
    path = f"/api/jobs/{submit().pk}/events/"
    with client.stream("GET", path) as mine, live.client(secret) as thief, live.events(thief, path) as events:
        next(events)
        until(lambda: len(live.hub.viewers) == 2)
        keys.revoke(stolen)
        assert list(events) == []
        lines = mine.iter_lines()
        assert [next(line for line in lines if line.startswith(": ")) for _ in range(3)]


def test_a_held_answer_tells_a_revoked_key_nothing_new(live, ann, submit):  # noqa: F811
    key, secret = keys.issue(ann, "stolen")  # noqa: F811
    with live.client(secret) as thief:
        path = f"/api/jobs/{submit().pk}/"
        answers = []
        asking = threading.Thread(target=lambda: answers.append(thief.get(path, headers={"Prefer": "wait=20"})))
        asking.start()
        until(lambda: live.hub.viewers)
        began = time.monotonic()
        keys.revoke(key)
        asking.join(AT_MOST)
        assert answers
        assert answers[0].json()["status"] == "QUEUED"
        assert time.monotonic() - began < AT_MOST
