"""Live events: what a viewer is told, from where on, and what watching costs the platform."""

import threading
import uuid

import httpx
import pytest
from django.db import OperationalError, connection

from jobs import keys, lifecycle
from jobs.api import feed, hub, stream_tokens
from jobs.errors import ErrorCode, JobError
from jobs.models import JobEvent
from tests.clients import ApiClient
from tests.live import Live
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def live():
    server = Live(timeout_graceful_shutdown=1)
    yield server
    server.close()
    assert not server.hub.viewers
    assert not server.hub._places


@pytest.fixture
def secret(ann):
    return keys.issue(ann, "test")[1]


@pytest.fixture
def client(live, secret):
    with live.client(secret) as client:
        yield client


def test_a_job_from_submit_to_its_end(live, client, submit):
    job = submit()
    with live.events(client, f"/api/jobs/{job.pk}/events/") as events:
        first = next(events)
        assert (first.event, first.json()["status"], first.json()["id"]) == ("job.queued", "QUEUED", str(job.pk))
        assert 1000 <= first.retry <= 4000
        lease = lifecycle.claim("cpu")
        assert (next(events).event, lease.job_id) == ("job.running", job.pk)
        lifecycle.beat(lease, progress=0.5, stage="half")
        progress = next(event for event in events if event.json()["progress"])
        assert (progress.event, progress.json()["stage"], progress.json()["progress"]) == ("progress", "half", 0.5)
        lifecycle.succeed(lease, [])
        last = list(events)[-1]  # and then it ends
    assert (last.event, last.json()["status"]) == ("job.succeeded", "SUCCEEDED")
    assert int(last.id) == JobEvent.objects.filter(job=job).latest("id").pk
    told = last.json()
    shown = client.get(f"/api/jobs/{job.pk}/").json()
    del shown["attempts"]  # the detail's own
    assert told["cost"] == {"estimate": 10, "charged": 10, "refunded": 0}
    assert {**told, "urls": 0} == {**shown, "urls": 0}  # one object everywhere; addresses as SITE_URL has them


def test_its_headers_hold_nothing_back(client, submit):
    with client.stream("GET", f"/api/jobs/{submit().pk}/events") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-encoding"] == "identity"
        assert answer.headers["x-accel-buffering"] == "no"
        assert "content-length" not in answer.headers
        assert answer.headers["x-request-id"]


def test_it_goes_on_from_where_it_was(live, client, submit):
    job = submit()
    path = f"/api/jobs/{job.pk}/events/"
    lifecycle.succeed(lifecycle.claim("cpu"), [])
    ids = list(JobEvent.objects.filter(job=job).order_by("id").values_list("id", flat=True))
    with live.events(client, path) as events:
        assert [int(event.id) for event in events] == ids
    with live.events(client, f"{path}?after={ids[0]}") as events:
        assert [int(event.id) for event in events] == ids[1:]
    with live.events(client, f"{path}?after=0", **{"Last-Event-ID": str(ids[1])}) as events:
        assert [int(event.id) for event in events] == ids[2:]
    assert client.get(f"{path}?after={ids[-1]}").status_code == 204  # an EventSource stays away after that
    assert codes_of(client.get(f"{path}?after=x")) == {"after"}
    assert codes_of(client.get(f"{path}?since=1")) == {"since"}


def codes_of(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 400
    return {error["field"] for error in answer.json()["errors"]}


def test_all_of_ones_own_jobs_and_nobody_elses(live, client, submit, bob):
    submit()
    with live.events(client, "/api/events/") as events:
        assert next(events).event == "position"
        submit(owner=bob)
        mine = submit()
        told = next(events)
        assert (told.event, told.json()["id"]) == ("job.queued", str(mine.pk))
        lifecycle.cancel(mine.pk, by="test")
        assert next(events).event == "job.canceled"
        position = told.id
    last = JobEvent.objects.latest("id").pk
    with live.events(client, "/api/events/", **{"Last-Event-ID": position}) as events:
        assert last in (int(event.id) for event in events)  # on PostgreSQL after the last ten seconds again


def test_a_deleted_job_ends_its_stream(live, client, submit, monkeypatch):
    monkeypatch.setattr(hub, "GONE_SECONDS", 0.1)
    job = submit()
    with live.events(client, f"/api/jobs/{job.pk}/events/") as events:
        next(events)
        lifecycle.delete(job.pk, by="test")
        last = list(events)[-1]
    assert (last.event, last.json()) == ("job.deleted", {"id": str(job.pk)})


def test_a_retry_in_another_round(live, client, running):
    lease = running(max_attempts=1)
    lifecycle.fail(lease, JobError(ErrorCode.bad_input))
    lifecycle.retry(lease.job_id, by="test")
    with live.events(client, f"/api/jobs/{lease.job_id}/events/") as events:
        names = [next(events).event for _ in range(4)]
        assert names == ["job.queued", "job.running", "job.failed", "job.queued"]  # not over at the failure


def test_comments_keep_an_idle_stream_alive_and_it_ends_by_itself(live, client, submit, monkeypatch):
    monkeypatch.setattr(hub, "BEAT_SECONDS", 0.3)
    monkeypatch.setattr(hub, "LONGEST", 3.0)
    with client.stream("GET", f"/api/jobs/{submit().pk}/events/") as answer:
        text = "".join(answer.iter_text())
    assert text.count(hub.BEAT.decode()) >= 2


def test_while_the_database_is_away_the_stream_stays(live, client, submit, monkeypatch):
    monkeypatch.setattr(hub, "BEAT_SECONDS", 0.2)
    job, away = submit(), threading.Event()
    read = feed.Feed._read_events

    def fails(self):
        read(self)  # what it read is told all the same
        if away.is_set():
            raise OperationalError("the database is away")

    monkeypatch.setattr(feed.Feed, "_read_events", fails)
    with client.stream("GET", f"/api/jobs/{job.pk}/events/") as answer:
        lines = answer.iter_lines()
        assert any("job.queued" in line for line in lines)
        away.set()
        lifecycle.cancel(job.pk, by="test")
        for _ in range(3):
            assert not next(line for line in lines if line).startswith("event")
        away.clear()
        assert any("job.canceled" in line for line in lines)


def test_a_viewer_that_hangs_up_is_noticed(live, client, submit):
    with live.events(client, f"/api/jobs/{submit().pk}/events/") as events:
        next(events)
        assert len(live.hub.viewers) == 1
    until(lambda: not live.hub.viewers)
    until(lambda: live.hub._looking.done())  # nobody watches: nothing is asked


def test_how_many_streams_a_user_may_have(live, client, submit, bob, settings):
    settings.JOBSITE = {**settings.JOBSITE, "EVENT_STREAMS_PER_USER": 1}
    path = f"/api/jobs/{submit().pk}/events/"
    with live.events(client, path) as events:
        next(events)
        refused = client.get(path)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert int(refused.headers["retry-after"]) >= 1
        with live.client(keys.issue(bob, "x")[1]) as other, other.stream("GET", "/api/events/") as answer:
            assert answer.status_code == 200
    until(lambda: not live.hub.viewers)
    with live.events(client, path) as events:
        next(events)


def test_idle_viewers_hold_neither_thread_nor_connection(live, client, submit):
    path = f"/api/jobs/{submit().pk}/events/"
    with live.events(client, path) as events:
        next(events)
        until(lambda: len(live.hub.viewers) == 1)
        before = threading.active_count()
        more = [client.stream("GET", path) for _ in range(20)]
        for stream in more:
            stream.__enter__()
        until(lambda: len(live.hub.viewers) == 21)
        until(lambda: threading.active_count() <= before + 2)  # the fixed few that ask
        for stream in more:
            stream.__exit__(None, None, None)


def test_the_server_ends_with_streams_open(client, live, submit):
    with live.events(client, f"/api/jobs/{submit().pk}/events/") as events:
        next(events)
        live.server.should_exit = True
        live.thread.join(0.3)
        live.hub.close()  # what the server's TERM does
        assert list(events) == []
        live.thread.join(30)
        assert not live.thread.is_alive()


def test_a_browser_comes_with_its_session(live, ann, submit, client):
    from django.test import Client

    browser = Client()
    browser.force_login(ann)
    cookies = {"sessionid": browser.cookies["sessionid"].value}
    path = f"/api/jobs/{submit().pk}/events/"
    with httpx.Client(base_url=live.url, cookies=cookies) as session, live.events(session, path) as events:
        assert next(events).event == "job.queued"


def test_where_no_event_loop_serves_the_stream_is_empty_and_ends(as_ann, submit):
    answer = as_ann.get(f"/api/jobs/{submit().pk}/events/")
    assert (answer.status_code, answer.content[:6]) == (200, b"retry:")


# --- what is read, and when --------------------------------------------------------------------------------------


def statements(act) -> int:
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as seen:
        act()
    return len(seen)


def test_a_look_costs_the_same_for_one_viewer_and_for_hundreds(submit):
    jobs = {submit().pk for _ in range(50)}
    look = feed.Feed()
    assert look.look(jobs, {}) == []
    assert statements(lambda: look.look(jobs, {})) <= 3
    for job_id in jobs:
        lifecycle.cancel(job_id, by="test")
    told = []
    assert statements(lambda: told.extend(look.look(jobs, {}))) <= 7
    assert {one.job_id for one in told} == jobs


def test_an_event_that_appears_late_is_told_once(submit):
    """On PostgreSQL a transaction may commit after one that was given a higher id. Without the looking back for what
    was skipped, the second look finds nothing (seen so)."""
    now = [0.0]
    job = submit()
    look = feed.Feed(clock=lambda: now[0])
    look.look({job.pk}, {})
    first = JobEvent.objects.latest("id")
    JobEvent.objects.create(id=first.pk + 3, job=job, attempt=0, status="QUEUED")
    assert [one.key for one in look.look({job.pk}, {})] == [first.pk + 3]
    JobEvent.objects.create(id=first.pk + 1, job=job, attempt=0, status="QUEUED")
    assert [one.key for one in look.look({job.pk}, {})] == [first.pk + 1]
    assert look.look({job.pk}, {}) == []
    now[0] = feed.LATE + 1
    JobEvent.objects.create(id=first.pk + 2, job=job, attempt=0, status="QUEUED")
    assert look.look({job.pk}, {}) == []  # that late is never


def test_an_event_under_way_when_the_looking_begins(submit):
    job = submit()
    first = JobEvent.objects.latest("id").pk
    JobEvent.objects.create(id=first + 2, job=job, attempt=0, status="QUEUED")
    look = feed.Feed()
    look.look({job.pk}, {})
    JobEvent.objects.create(id=first + 1, job=job, attempt=0, status="QUEUED")
    assert [one.key for one in look.look({job.pk}, {})] == [first + 1]


def test_whoever_was_away_long_is_caught_up_in_pieces(submit, ann, monkeypatch):
    monkeypatch.setattr(feed, "REPLAYED", 3)
    for _ in range(5):
        submit()
    told, more = feed.replay_owner(ann.pk, 0)
    assert (len(told), more) == (3, True)
    told, more = feed.replay_owner(ann.pk, max(told))
    assert more is (connection.vendor == "postgresql")  # there the last ten seconds come twice
    assert max(told) == JobEvent.objects.latest("id").pk or more


# --- stream tokens ------------------------------------------------------------------------------------------------


def test_a_token_opens_one_jobs_stream_alone(live, client, submit, ann):
    job, other = submit(), submit()
    made = client.post(f"/api/jobs/{job.pk}/stream-token/")
    token = made.json()["token"]
    assert (made.status_code, made.headers["cache-control"], made.json()["expires_in"]) == (200, "no-store", 600)
    with live.client() as anybody:
        with live.events(anybody, made.json()["url"].removeprefix(live.url)) as events:
            assert next(events).event == "job.queued"
        for path in (
            f"/api/jobs/{other.pk}/events/?token={token}",
            f"/api/jobs/{job.pk}/?token={token}",
            f"/api/events/?token={token}",
            f"/api/jobs/{job.pk}/events/?token={token}x",
            f"/api/jobs/{job.pk}/events/?token=jst_",
        ):
            assert anybody.get(path).status_code in (400, 401), path


def test_a_token_is_for_ten_minutes(ann, submit, monkeypatch):
    key, _ = keys.issue(ann, "x")
    job = submit()
    token = stream_tokens.issue(key, job.pk)
    assert stream_tokens.opened(token, job.pk).key == key
    assert stream_tokens.opened(token, uuid.uuid4()) is None
    keys.revoke(key)
    assert stream_tokens.opened(token, job.pk) is None
    key, _ = keys.issue(ann, "y")
    monkeypatch.setattr(stream_tokens, "SECONDS", -1)
    assert stream_tokens.opened(stream_tokens.issue(key, job.pk), job.pk) is None


def test_tokens_are_given_for_jobs_that_one_sees_and_to_keys(as_ann, as_bob, ann, submit):
    path = f"/api/jobs/{submit().pk}/stream-token/"
    assert as_bob.send(path).status_code == 404
    browser = ApiClient()
    browser.force_login(ann)
    assert browser.send(path).status_code == 403
    assert as_ann.send(path).status_code == 200
