"""A lost line, a busy platform, a proxy on the way: tried again, by the same key, and never twice."""

import jobsite_client
import pytest
from jobsite_client import Jobsite
from jobsite_client.follow import Follow
from jobsite_client.sync import done

from jobs import lifecycle
from jobs.models import Job
from tests.client import network as networks
from tests.client import work
from tests.client.network import Trouble
from tests.waiting import until

pytestmark = pytest.mark.once


def test_a_submit_is_tried_again_and_sold_once(jobs, dish, network):
    """`lost` and `cut` sell a job more with each try when the keys differ: seen with a new one in `Wire.ask`."""
    made = []
    for what in ("unheard", "lost", "cut", "500", "502", "503", "429"):
        network.seen.clear()
        network.plan.append(Trouble("POST", "/api/jobs/", what, times=2))
        made.append(jobs.submit("KITCHEN", dish).id)
        sent = [one.headers["Idempotency-Key"] for one in network.asked("POST", "/api/jobs/")]
        assert (len(sent), len(set(sent))) == (3, 1), what
        assert [str(one.pk) for one in Job.objects.order_by("pk")] == made, what
    assert jobs.balance() == 1000 - 10 * len(made)


def test_pauses_are_those_that_the_platform_asks_for_else_they_grow(jobs, network, naps):
    network.plan.append(Trouble("GET", "/api/tokens/", "429", headers={"Retry-After": "7"}))
    network.plan.append(Trouble("GET", "/api/tokens/", "503", headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}))
    network.plan.append(Trouble("GET", "/api/tokens/", "503", times=2))
    assert jobs.balance() == 1000
    assert naps[:2] == [7, 0]
    assert 1 <= naps[2] <= 2 <= naps[3] <= 4


def test_a_pause_that_is_too_long_is_the_callers_to_make(jobs, dish, network, naps):
    network.plan.append(Trouble("POST", "/api/jobs/", "429", headers={"Retry-After": "3600"}))
    with pytest.raises(jobsite_client.TooManyRequests) as caught:
        jobs.submit("KITCHEN", dish)
    assert (caught.value.retry_after, naps) == (3600, [])
    assert jobs.submit("KITCHEN", dish, idempotency_key=caught.value.idempotency_key)


def test_after_all_tries_the_error_has_the_key_to_go_on_with(jobs, dish, network, naps):
    network.plan.append(Trouble("POST", "/api/jobs/", "lost", times=5))
    with pytest.raises(jobsite_client.ConnectionFailed) as caught:
        jobs.submit("KITCHEN", dish)
    assert len(naps) == 4
    jobs.submit("KITCHEN", dish, idempotency_key=caught.value.idempotency_key)
    assert Job.objects.count() == 1


def test_a_refusal_is_not_tried_again(jobs, network, naps):
    with pytest.raises(jobsite_client.InvalidRequest):
        jobs.submit("NOTHING")
    assert (len(network.seen), naps) == (1, [])


def test_a_delete_whose_answer_was_lost_was_done(jobs, dish, network):
    job = jobs.submit("KITCHEN", dish)
    network.plan.append(Trouble("DELETE", job.id, "lost"))
    jobs.delete(job)
    assert not Job.objects.exists()
    with pytest.raises(jobsite_client.NotFound):
        jobs.delete(job)


@pytest.mark.parametrize("what", ["hang", "unheard"])
def test_nobody_there(what):
    with networks.before("http://127.0.0.1:9") as network:
        network.plan.append(Trouble("GET", "/", what, times=9))
        with (
            Jobsite(network.url, "js_key", timeout=0.2, retries=1, sleep=lambda _: None) as jobs,
            pytest.raises(jobsite_client.ConnectionFailed) as caught,
        ):
            jobs.balance()
        assert network.url in str(caught.value)
        until(lambda: len(network.seen) == 2)  # the second may still be read


def test_an_answer_of_something_else_is_not_taken_for_a_jobsite(network, key, server):
    with Jobsite(f"{server}/static", key) as jobs, pytest.raises(jobsite_client.ApiError) as missing:
        jobs.balance()
    assert missing.value.status == 404  # a page, not a problem: still told as what it is
    network.plan.append(Trouble("GET", "/api/tokens/", "204"))
    with Jobsite(network.url, key) as jobs, pytest.raises(jobsite_client.UnexpectedAnswer):
        jobs.balance()


def test_a_redirect_of_the_api_is_not_followed(jobs, network, server):
    network.plan.append(Trouble("GET", "/api/tokens/", f"{server}/api/tokens/"))
    with pytest.raises(jobsite_client.UnexpectedAnswer) as caught:
        jobs.balance()
    assert server in str(caught.value)


def test_asking_is_as_good_as_events(jobs, dish, network, tmp_path):
    """Whatever becomes of the event stream, who waits sees the same."""
    for events in ("as they are", "404", "406", "429", "503", "cut", "unheard"):
        network.seen.clear()
        network.plan = [] if events.startswith("as") else [Trouble("GET", "/events/", events, times=99)]
        job = jobs.submit("KITCHEN", dish)
        seen = []
        for update in jobs.stream(job, timeout=60):
            seen.append((update.status, update.stage))
            if update.status == "QUEUED":
                lease = work.claimed()
                lifecycle.beat(lease, progress=0.5, stage="cooking")
            elif update.status == "RUNNING" and update.stage == "cooking":
                work.finish(lease, tmp_path, dish_txt=b"soup")
        assert (seen[0], seen[-1][0]) == (("QUEUED", ""), "SUCCEEDED"), events
        assert ("RUNNING", "cooking") in seen, events
        assert update.outputs[0].bytes == 4
        asked = len(network.asked("GET", "/events/"))
        assert asked == 1 if events in ("404", "406") else asked >= 1, events


def test_a_platform_that_is_away_for_a_while_is_waited_for(jobs, dish, network, tmp_path, naps):
    job = jobs.submit("KITCHEN", dish)
    network.plan.append(Trouble("GET", job.id, "unheard", times=12))
    with work.hand(lambda: work.finish(work.claimed(), tmp_path, dish_txt=b"soup")):
        assert jobs.wait(job, timeout=60).status == "SUCCEEDED"
    assert sum(naps) > 20  # twelve requests were lost, in three rounds of tries


def test_one_that_stays_away_is_given_up_with_the_jobs_id(jobs, dish, network, monkeypatch):
    monkeypatch.setattr("jobsite_client.follow.PATIENCE", 0.05)
    job = jobs.submit("KITCHEN", dish)
    network.plan.append(Trouble("GET", job.id, "unheard", times=10**6))
    with pytest.raises(jobsite_client.ConnectionFailed) as caught:
        jobs.wait(job)
    assert caught.value.job_id == job.id


def test_an_unchanged_job_costs_no_body(jobs, dish, network):
    """Where the platform sends an ETag; the client gives it back and takes the 304."""
    job = jobs.submit("KITCHEN", dish)
    follow = Follow(jobs._calls._wire, job.id, None)
    first, second = done(follow._asked()), done(follow._asked())
    assert first == second
    if follow.etag:
        assert network.asked("GET", job.id)[1].headers["If-None-Match"] == follow.etag
