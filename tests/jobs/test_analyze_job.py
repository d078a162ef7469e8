"""An analysis from its upload to its result: API, price, runner, database; the log lines of the analysis worker."""

import json
import logging

import pytest
from django.conf import settings as configured
from django.core.files.uploadedfile import SimpleUploadedFile

from jobs import artifacts, breakers, lifecycle, runner
from jobs.errors import ErrorCode, JobError
from jobs.heartbeat import heart
from jobs.kinds import analyze
from jobs.models import Job, Status
from tests import invariants
from tests.clients import codes
from tests.fake_llm import KEY, FakeLLM
from tokens.models import Account

pytestmark = pytest.mark.django_db(transaction=True)

SMALL = b"city,price\nParis,1\nRome,2\nOslo,3\n"
LONG = b"city,price\n" + b"Paris,1\n" * 1_250_000  # 10,000,011 bytes: two units


@pytest.fixture(autouse=True)
def _brisk(settings, monkeypatch):
    quick = {"HEARTBEAT_SECONDS": 0.1, "WATCH_SECONDS": 0.05, "RETRY_INITIAL_DELAY": 0.01, "CIRCUIT_THRESHOLD": 3}
    settings.JOBSITE = settings.JOBSITE | quick
    monkeypatch.setattr(heart, "_end_if_deaf", lambda idle_since: None)
    yield
    heart.stop()
    invariants.check()


def bring(client, content: bytes, name: str = "sales.csv"):
    return client.post("/api/uploads/", {"file": SimpleUploadedFile(name, content)})


@pytest.fixture
def submit(as_ann):
    """submit(bytes) → a queued analysis of Ann's."""

    def make(content: bytes = SMALL) -> Job:
        reference = bring(as_ann, content).json()["reference"]
        answer = as_ann.send("/api/jobs/", {"kind": "ANALYZE", "params": {"file": reference}})
        assert answer.status_code == 202, answer.json()
        return Job.objects.get(pk=answer.json()["id"])

    return make


def run_one() -> Job:
    lease = lifecycle.claim("cpu")
    runner.run(lease)
    return Job.objects.get(pk=lease.job_id)


def result(job: Job) -> dict:
    with artifacts.default_storage.open(job.outputs.get(name="result.json").key) as stored:
        return json.load(stored)


def tokens(person) -> int:
    return Account.objects.get(user=person).balance


@pytest.mark.parametrize("name", ["sales.csv", "sales.mp4", "sales"])
@pytest.mark.parametrize("content", [SMALL, SMALL.replace(b",", b"\t"), SMALL.decode().encode("utf-16")])
def test_a_table_is_told_by_its_bytes(as_ann, name, content):
    answer = bring(as_ann, content, name)
    assert (answer.status_code, answer.json()["content_type"]) == (201, "text/csv")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (SMALL + b"\x00,4\n", "NUL character"),
        ((",".join(map(str, range(10_000))) + "\n").encode() * 3, "10,000 columns"),
        (SMALL + b"x" * 1_100_000, "line of more than"),
        (b"city,price\n", "no rows"),
        (b'a,b\n"1,2\n', "quote"),
        (b"all one column\n1\n2\n", "table (CSV)"),
    ],
)
def test_what_can_be_known_to_be_wrong_is_refused_before_it_costs(as_ann, content, words):
    answer = bring(as_ann, content)
    assert (answer.status_code, codes(answer)) == (400, {"file": "bad_input"})
    assert words in answer.json()["detail"]


def test_a_table_is_no_clip_and_a_clip_no_table(as_ann):
    from tests import media_files

    table, clip = bring(as_ann, SMALL).json()["reference"], bring(as_ann, media_files.clip()).json()["reference"]
    for kind, params in [("STITCH", {"clips": [table, clip]}), ("ANALYZE", {"file": clip})]:
        answer = as_ann.send("/api/jobs/", {"kind": kind, "params": params})
        assert (answer.status_code, set(codes(answer).values())) == (400, {"bad_input"})


def test_the_estimate_is_the_price_and_is_by_the_file(as_ann, submit, ann):
    reference = bring(as_ann, LONG).json()["reference"]
    body = {"kind": "ANALYZE", "params": {"file": reference}}
    assert as_ann.send("/api/jobs/estimate", body).json()["cost"] == {"estimate": 2}
    assert as_ann.send("/api/jobs/", body).json()["cost"]["charged"] == 2
    assert submit().price == 1
    assert tokens(ann) == 997


def test_succeeds_and_its_outputs_are_stored(submit):
    submit()
    job = run_one()
    assert job.status == Status.SUCCEEDED
    types = dict(job.outputs.values_list("name", "content_type"))
    assert types["result.json"] == "application/json"
    assert types["profile.csv"] == "text/csv"
    assert types["chart-1.png"] == "image/png"
    assert result(job)["rows"] == 3


def test_a_ragged_table_fails_and_is_refunded(submit, ann):
    submit(SMALL * 2 + b"x\n")
    job = run_one()
    assert (job.status, job.error_code) == (Status.FAILED, "bad_input")
    assert job.error_message == "Line 9 has 1 columns instead of 2."
    assert tokens(ann) == 1000


def test_the_breaker_opens_for_all_jobs_and_each_succeeds(submit, settings, caplog):
    with FakeLLM("500") as server:
        own = {"LLM_KEY": KEY, "LLM_BASE_URL": server.base_url, "LLM_RETRY_ATTEMPTS": 2}
        settings.JOBSITE = settings.JOBSITE | own
        for _ in range(3):
            submit()
            job = run_one()
            assert (job.status, result(job)["issues"]) == (Status.SUCCEEDED, [analyze.FALLBACK])
    assert len(server.requests) == 3, "two of the first job, one of the second, then it is left alone"
    assert [(target, state) for target, state, _wait in breakers.states()] == [("llm", "open")]
    assert "LLM call (deepseek/deepseek-r1): Attempt 2/2" in caplog.messages
    assert "Circuit breaker is OPEN. Using fallback." in caplog.messages
    assert KEY not in caplog.text


@pytest.mark.parametrize("stage", ["parsing", "processing"])
def test_a_cancel_is_logged_with_what_it_was_doing(submit, monkeypatch, caplog, stage):
    caplog.set_level(logging.INFO)
    job = submit()
    plain = runner.Attempt.progress

    def progress(attempt, fraction, what=None):
        if what == stage:
            attempt.stage = what
            lifecycle.cancel(job.pk, by="user")
            attempt.end(runner.LeaseLost(job.pk, 1))
        plain(attempt, fraction, what)

    monkeypatch.setattr(runner.Attempt, "progress", progress)
    assert run_one().status == Status.CANCELED
    assert f"Job {job.pk} was cancelled during {stage}." in caplog.messages


@pytest.mark.parametrize("stage", ["parsing", "processing"])
def test_a_timeout_is_logged_with_what_it_was_doing(submit, monkeypatch, caplog, stage):
    job = submit()
    Job.objects.update(max_attempts=1)
    plain = runner.Attempt.progress

    def progress(attempt, fraction, what=None):
        if what == stage:
            attempt.stage = what
            attempt.end(JobError(ErrorCode.timeout))
        plain(attempt, fraction, what)

    monkeypatch.setattr(runner.Attempt, "progress", progress)
    assert run_one().error_code == "timeout"
    assert f"Job {job.pk} has timed out" in caplog.messages
    assert f"Job {job.pk} timed out during {stage}." in caplog.messages


def test_its_limit_is_the_documents():
    assert analyze.Analyze.limits.run == configured.JOBSITE["ANALYZE_SECONDS"] == 600
