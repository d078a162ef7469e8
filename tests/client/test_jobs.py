"""Submit, follow, cancel, retry, list: what a program does with the client, against the real web process."""

import itertools
import threading
from datetime import UTC, datetime, timedelta

import jobsite_client
import pytest
from jobsite_client import Jobsite

from jobs import joblog, keys, lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.models import Job
from tests.client import work
from tests.client.network import Trouble
from tests.waiting import until

pytestmark = pytest.mark.once


def test_a_job_from_its_price_to_its_file(jobs, dish, tmp_path):
    estimate = jobs.estimate("KITCHEN", dish)
    assert (estimate.cost, jobs.balance()) == (10, 1000)
    job = jobs.submit("KITCHEN", dish, metadata={"scene": 4}, max_attempts=2, deadline_seconds=60)
    assert job.deadline_at and job.created_at and 50 < (job.deadline_at - job.created_at).total_seconds() < 70
    assert (job.status, job.cost.charged, job.metadata, job.max_attempts) == ("QUEUED", 10, {"scene": 4}, 2)
    assert datetime.now(UTC) - job.created_at < timedelta(minutes=1)
    with work.hand(lambda: work.finish(work.claimed(), tmp_path, dish_txt=b"soup")):
        job = jobs.wait(job, timeout=30)
    assert job.raise_for_outcome().status == "SUCCEEDED"
    (output,) = job.outputs
    assert jobs.download(output, tmp_path / "mine.txt").read_bytes() == b"soup"
    assert [line.amount for line in jobs.transactions()] == [-10, 1000]
    assert "SUCCEEDED" in jobs.explain(job)["now"][0] or jobs.explain(job)["timeline"]
    jobs.delete(job)
    with pytest.raises(jobsite_client.NotFound):
        jobs.get(job)


def test_run_is_submit_and_wait_and_shows_the_way(jobs, dish, tmp_path):
    shown = []

    def cook():
        until(lambda: shown)
        lease = work.claimed()
        until(lambda: any(job.status == "RUNNING" for job in shown))
        lifecycle.beat(lease, progress=0.5, stage="cooking")
        until(lambda: any(job.progress == 0.5 for job in shown))
        work.finish(lease, tmp_path, dish_txt=b"soup")

    with work.hand(cook):
        job = jobs.run("KITCHEN", dish, timeout=30, on_update=shown.append)
    statuses = [status for status, _ in itertools.groupby(one.status for one in shown)]
    assert statuses == ["QUEUED", "RUNNING", "SUCCEEDED"]
    assert "cooking" in {one.stage for one in shown}
    assert shown[0].queue_position == 1
    assert job == shown[-1]


def test_a_failure_says_why_and_what_came_back(jobs, dish):
    with (
        work.hand(lambda: lifecycle.fail(work.claimed(), JobError(ErrorCode.bad_input, "The soup is cold."))),
        pytest.raises(jobsite_client.JobFailed) as caught,
    ):
        jobs.run("KITCHEN", dish, timeout=30)
    error = caught.value
    assert (error.code, error.message, error.refunded, error.retryable) == ("bad_input", "The soup is cold.", 10, False)
    assert jobs.balance() == 1000
    again = jobs.retry(error.job)
    assert (again.id, again.status, again.cost.charged) == (error.job_id, "QUEUED", 20)
    ended = jobs.cancel(again)
    assert (ended.status, jobs.cancel(again), jobs.balance()) == ("CANCELED", ended, 1000)
    with pytest.raises(jobsite_client.JobCanceled):
        ended.raise_for_outcome()
    with pytest.raises(jobsite_client.Conflict) as conflict:
        jobs.retry(ended)
    assert conflict.value.code == "job_not_failed"


def test_the_job_is_known_after_a_timeout(jobs, dish):
    with pytest.raises(TimeoutError) as caught:
        jobs.run("KITCHEN", dish, timeout=0.3)
    assert isinstance(caught.value, jobsite_client.JobUnfinished)
    assert jobs.get(caught.value.job_id).status == "QUEUED"
    with pytest.raises(jobsite_client.JobUnfinished):
        jobs.wait(caught.value.job_id, timeout=0)


def test_who_waits_is_told_that_the_job_was_deleted(jobs, dish):
    job = jobs.submit("KITCHEN", dish)
    with pytest.raises(jobsite_client.NotFound) as caught:
        for _ in jobs.stream(job, timeout=30):
            lifecycle.delete(job.id, by="test")
    assert caught.value.job_id == job.id


@pytest.mark.parametrize("call", ["run", "subscribe"])
@pytest.mark.parametrize("when", ["waiting", "submitting"])
def test_ctrl_c_cancels_the_job(jobs, dish, network, monkeypatch, when, call):
    if when == "submitting":  # it was made, but nobody heard of it: the moment in which people press Ctrl-C
        network.plan.append(Trouble("POST", "/api/jobs/", "lost"))
    ask = jobs._calls._wire.ask

    async def pressed(method, path, **options):
        if when == "submitting" and path == "/api/jobs/" and not network.asked("POST", path):
            options["retries"] = 0
            with pytest.raises(jobsite_client.ConnectionFailed):
                await ask(method, path, **options)
            raise KeyboardInterrupt
        if when == "waiting" and method == "GET":
            raise KeyboardInterrupt
        return await ask(method, path, **options)

    monkeypatch.setattr(jobs._calls._wire, "ask", pressed)
    with pytest.raises(KeyboardInterrupt) as caught:
        jobs.run("KITCHEN", dish) if call == "run" else list(jobs.subscribe("KITCHEN", dish))
    (job,) = Job.objects.all()
    assert job.status == "CANCELED"
    assert caught.value.__notes__ == [f"Job {job.pk} is CANCELED."]


def test_who_subscribes_sees_every_change(jobs, dish, tmp_path):
    seen = []

    def cook():
        lease = work.claimed()
        lifecycle.beat(lease, progress=0.5, stage="cooking")
        until(lambda: any(job.stage == "cooking" for job in seen))
        work.finish(lease, tmp_path, dish_txt=b"soup")

    with work.hand(cook):
        for job in jobs.subscribe("KITCHEN", dish, timeout=30, metadata={"scene": 4}):
            seen.append(job)
    assert {job.progress for job in seen if job.stage == "cooking"} == {0.5}
    assert (job.status, job.metadata) == ("SUCCEEDED", {"scene": 4})


def test_who_leaves_the_loop_leaves_the_job(jobs, dish):
    job = next(jobs.subscribe("KITCHEN", dish))
    assert jobs.get(job).status == "QUEUED"
    with pytest.raises(jobsite_client.JobUnfinished) as caught:
        list(jobs.subscribe("KITCHEN", dish, timeout=0))
    assert jobs.get(caught.value.job_id).status == "QUEUED"


def test_jobs_are_listed_page_by_page(jobs, dish, network):
    made = [jobs.submit("KITCHEN", dish).id for _ in range(5)]
    jobs.cancel(made[0])
    found = jobs.list(page=2)
    assert next(found).id == made[-1]
    assert len(network.asked("GET", "/api/jobs/")) == 1  # as one goes on
    jobs.submit("KITCHEN", dish)
    assert [job.id for job in found] == made[-2::-1]
    assert [job.id for job in jobs.list(status="CANCELED")] == made[:1]
    assert [job.id for job in jobs.list(status=["CANCELED", "FAILED"], kind="KITCHEN")] == made[:1]
    assert list(jobs.list(created_before=datetime.now(UTC) - timedelta(hours=1))) == []
    assert len(list(jobs.list(created_after=datetime.now(UTC) - timedelta(hours=1)))) == 6


def test_jobs_are_found_by_words(jobs, dish):
    first, second = (jobs.submit("KITCHEN", dish, metadata={"order": f"A {number}"}) for number in (1, 2))
    jobs.cancel(first)
    for words, found in {
        "status:canceled": [first],
        "kind:kitchen": [second, first],
        'meta.order:"A 2"': [second],
        f"id:{first.id}": [first],
        f"{second.id} kind:KITCHEN": [second],
    }.items():
        assert [job.id for job in jobs.list(search=words)] == [job.id for job in found], words
    with pytest.raises(jobsite_client.InvalidRequest):
        list(jobs.list(search="colour:red"))


def test_refusals_are_types_that_say_all(jobs, dish, bob, network):
    with pytest.raises(jobsite_client.InvalidRequest) as caught:
        jobs.submit("KITCHEN", {"seconds": "many", "spice": 1})
    wrong = caught.value
    assert (wrong.status, wrong.code, wrong.retryable) == (400, "invalid_request", False)
    assert {field for field, _, _ in wrong.fields} == {"params.seconds", "params.spice"}
    assert wrong.request_id
    assert wrong.docs.endswith("#invalid_request")
    assert "params.spice" in str(wrong)
    with pytest.raises(jobsite_client.InsufficientTokens):
        for _ in range(3):
            jobs.submit("KITCHEN", dish | {"price": 400})
    with pytest.raises(jobsite_client.NotFound):
        jobs.get(str(lifecycle.submit(bob.pk, "KITCHEN", dish)[0].pk))
    with pytest.raises(ValueError):
        jobs.get("../admin")
    with Jobsite(network.url, "js_wrong") as stranger, pytest.raises(jobsite_client.NotAuthenticated):
        stranger.balance()


def test_a_log_is_followed_to_its_end(jobs, dish, tmp_path):
    job = jobs.submit("KITCHEN", dish)
    lease = work.claimed()
    log = joblog.Log(lease.job_id, lease.attempt)

    def tell(text: str) -> None:
        log.say(text)
        log.write()

    tell("Chopping.")
    assert [line.text for line in jobs.logs(job)] == ["Chopping."]
    heard = []
    for line in jobs.logs(job, follow=True):
        heard.append(line.text)
        if len(heard) == 1:
            tell("Cooking.")
            work.finish(lease, tmp_path, dish_txt=b"soup")
    assert heard == ["Chopping.", "Cooking."]


def test_one_client_serves_several_threads(jobs, dish):
    made = []
    threads = [threading.Thread(target=lambda: made.append(jobs.submit("KITCHEN", dish).id)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(set(made)) == 6


def test_an_address_and_a_key_are_needed(monkeypatch, tmp_path, server, key):
    monkeypatch.setenv("JOBSITE_CONFIG", str(tmp_path / "none.json"))
    for url, secret in [("", ""), (server, ""), ("ftp://host", key), ("http://a:b@h", key), ("http://h/?", key)]:
        with pytest.raises(ValueError):
            Jobsite(url, secret)
    monkeypatch.setenv("JOBSITE_URL", server)
    monkeypatch.setenv("JOBSITE_KEY", key)
    with Jobsite() as client:
        assert client.balance() == 1000
    assert keys.find(key)
