"""`Prefer: wait=N`, and polls that find nothing new."""

import threading

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs import keys, lifecycle
from jobs.api import polls
from jobs.errors import ErrorCode, JobError
from jobs.models import Job
from tests.clients import ApiClient
from tests.jobs.api.test_events import client, live, secret  # noqa: F401 - fixtures
from tests.jobs.conftest import PARAMS
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
BODY = {"kind": "KITCHEN", "params": PARAMS}


def answered(ask):
    """The answer to come of a request that another thread makes."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    thread.start()

    def answer():
        thread.join(30)
        return answers[0]

    return answer


# --- waiting -------------------------------------------------------------------------------------------------------


def test_a_submit_that_waits_answers_with_the_outcome(live, client):  # noqa: F811
    answer = answered(lambda: client.post("/api/jobs/", json=BODY, headers={"Prefer": "respond-async, wait=20"}))
    until(lambda: live.hub.viewers)
    lifecycle.succeed(lifecycle.claim("cpu"), [])
    told = answer()
    assert (told.status_code, told.json()["status"]) == (200, "SUCCEEDED")
    assert told.headers["preference-applied"] == "wait=20"
    assert told.headers["location"].endswith(f"/api/jobs/{told.json()['id']}/")
    assert "retry-after" not in told.headers
    assert int(told.headers["content-length"]) == len(told.content)


def test_when_time_is_up_it_answers_with_what_there_is(live, client):  # noqa: F811
    answer = answered(lambda: client.post("/api/jobs/", json=BODY, headers={"Prefer": "wait=3"}))
    until(lambda: live.hub.viewers)
    lifecycle.claim("cpu")
    told = answer()
    assert (told.status_code, told.json()["status"]) == (202, "RUNNING")
    assert (told.headers["preference-applied"], told.headers["retry-after"]) == ("wait=3", "1")


def test_a_look_that_waits(live, client, submit):  # noqa: F811
    job = submit()
    old = client.get(f"/api/jobs/{job.pk}/").headers["etag"]
    headers = {"Prefer": "wait=99", "If-None-Match": old}
    answer = answered(lambda: client.get(f"/api/jobs/{job.pk}/", headers=headers))
    until(lambda: live.hub.viewers)
    lifecycle.fail(lifecycle.claim("cpu"), JobError(ErrorCode.bad_input))
    told = answer()
    assert (told.status_code, told.json()["status"]) == (200, "FAILED")
    assert told.json()["cost"] == {"estimate": 10, "charged": 10, "refunded": 10}
    assert told.headers["preference-applied"] == "wait=60"  # no longer than that
    assert "etag" not in told.headers  # it was of what the job was before
    again = client.get(f"/api/jobs/{job.pk}/", headers={"Prefer": "wait=5"})
    assert (again.status_code, again.headers["preference-applied"]) == (200, "wait=5")


def test_whoever_waits_holds_no_thread(live, client, submit):  # noqa: F811
    job = submit()
    answers = [answered(lambda: client.get(f"/api/jobs/{job.pk}/", headers={"Prefer": "wait=20"})) for _ in range(12)]
    until(lambda: len(live.hub.viewers) == 12)
    assert client.get("/livez").status_code == 200  # now, not in 20 s: its client waits for ten
    lifecycle.cancel(job.pk, by="test")
    assert {answer().json()["status"] for answer in answers} == {"CANCELED"}


def test_whoever_waits_in_too_many_places_is_not_waited_for(live, client, submit, settings):  # noqa: F811
    settings.JOBSITE = {**settings.JOBSITE, "EVENT_STREAMS_PER_USER": 1}
    path = f"/api/jobs/{submit().pk}/"
    with live.events(client, f"{path}events/") as events:
        next(events)
        told = client.get(path, headers={"Prefer": "wait=30"})
    assert (told.status_code, told.json()["status"]) == (200, "QUEUED")
    assert "preference-applied" not in told.headers


def test_a_replayed_submit_waits_too(live, client):  # noqa: F811
    headers = {"Idempotency-Key": "once"}
    client.post("/api/jobs/", json=BODY, headers=headers)
    answer = answered(lambda: client.post("/api/jobs/", json=BODY, headers={**headers, "Prefer": "wait=20"}))
    until(lambda: live.hub.viewers)
    lifecycle.succeed(lifecycle.claim("cpu"), [])
    told = answer()
    assert (told.status_code, told.json()["status"], told.headers["idempotent-replayed"]) == (200, "SUCCEEDED", "true")
    assert Job.objects.count() == 1


@pytest.mark.parametrize("prefer", ["wait=0", "wait", "wait=x", "return=minimal", "await=3"])
def test_what_is_no_wish_to_wait(prefer, as_ann):
    told = as_ann.send("/api/jobs/", BODY, Prefer=prefer)
    assert told.status_code == 202
    assert "Preference-Applied" not in told.headers


# --- polls ---------------------------------------------------------------------------------------------------------


def test_a_poll_that_finds_nothing_new_is_a_304(live, client, submit, as_ann):  # noqa: F811
    job = submit()
    path = f"/api/jobs/{job.pk}/"
    known = client.get(path).headers["etag"]
    assert known.startswith('W/"')
    headers = {"If-None-Match": known}
    for asked in (path, path.rstrip("/")):
        same = client.get(asked, headers=headers)
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", known)
        assert same.headers["retry-after"] == "1"
        assert same.headers["x-request-id"]
    slow = as_ann.get(path, headers=headers)  # the same by way of the view
    assert (slow.status_code, slow.headers["ETag"], slow.content) == (304, known, b"")
    assert client.get(path, headers={"If-None-Match": f'"other", {known}'}).status_code == 304
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_every_change_that_is_shown_is_another_tag(as_ann, submit):
    job, first = submit(max_attempts=2), submit(priority=1)
    seen = []

    def look(is_new: bool = True):
        answer = as_ann.get(f"/api/jobs/{job.pk}/")
        shown = (answer.headers["ETag"], answer.json())
        if seen:
            assert (shown[0] != seen[-1][0]) is is_new
            assert (shown[1] != seen[-1][1]) is is_new
        seen.append(shown)

    look()
    look(is_new=False)
    lifecycle.cancel(first.pk, by="test")  # its place in the queue is another
    look()
    lease = lifecycle.claim("cpu")
    look()
    lifecycle.beat(lease, progress=0.0, stage="claimed")  # a sign of life shows nothing
    look(is_new=False)
    lifecycle.beat(lease, progress=0.5, stage="half")
    look()
    lifecycle.fail(lease, JobError(ErrorCode.internal_error))
    look()
    Job.objects.filter(pk=job.pk).update(run_after="2020-01-01T00:00Z")
    lifecycle.fail(lifecycle.claim("cpu"), JobError(ErrorCode.internal_error))
    look()
    lifecycle.retry(job.pk, by="test")
    look()
    lifecycle.succeed(lifecycle.claim("cpu"), [])
    look()
    look(is_new=False)


def test_a_304_is_for_those_alone_who_may_look(live, client, submit, bob, op):  # noqa: F811
    path = f"/api/jobs/{submit().pk}/"
    headers = {"If-None-Match": client.get(path).headers["etag"]}
    for key, status in (
        (keys.issue(bob, "x")[1], 404),
        (keys.issue(op, "x", "viewer")[1], 304),
        (keys.issue(op, "x", "user")[1], 404),
        ("js_wrong", 401),
    ):
        with live.client(key) as other:
            assert other.get(path, headers=headers).status_code == status
            assert other.get(path, headers={"If-None-Match": "*"}).status_code == status
    with live.client() as nobody:
        assert nobody.get(path, headers=headers).status_code == 401


def test_what_a_poll_asks(ann, submit):
    secret = keys.issue(ann, "x")[1]  # noqa: F811
    jobs = [submit(priority=priority) for priority in (0, 0, 3, 0, -3)]
    Job.objects.update(run_after=jobs[0].created_at)  # at the same time
    client = ApiClient(headers={"Authorization": f"Bearer {secret}"})  # noqa: F811
    places = []
    for job in jobs:
        answer = client.get(f"/api/jobs/{job.pk}/")
        places.append(answer.json()["queue_position"])
        known = answer.headers["ETag"]
        with CaptureQueriesContext(connection) as seen:
            assert polls._unchanged(secret, job.pk, known)["ETag"] == known
        assert len(seen) == 2  # the job, by its key, and the place of one that waits
    assert places == [2, 2, 1, 2, 5]  # behind what is more urgent and due; those due at the same time share a place
    running = lifecycle.claim("cpu").job_id
    known = client.get(f"/api/jobs/{running}/").headers["ETag"]
    with CaptureQueriesContext(connection) as seen:
        assert polls._unchanged(secret, running, known)
    assert len(seen) == 1
