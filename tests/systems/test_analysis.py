"""The analysis worker's document (seed 004): upload, watch, cancel, time out, do without the model, shut down."""

import json
import signal
import sys

import pytest
from django.conf import settings

from jobs.models import Job
from tests.fake_llm import FakeLLM
from tests.faults.rig import balance, fresh
from tests.waiting import until

SALES = (settings.BASE_DIR / "dev-samples" / "sales_demo.csv").read_bytes()
NAMES = {"jobId", "status", "progress", "resultUrl", "error", "errorMessage", "createdAt", "updatedAt", "cancelledAt"}


@pytest.fixture
def upload(ann_calls):
    """upload() → the id of a job that analyses the sample, as `curl -F` sends it."""

    def make() -> str:
        status, job = ann_calls.upload("/api/upload", "sales_demo.csv", SALES)
        assert (status, job["status"]) == (202, "submitted"), job
        return job["jobId"]

    return make


def status_of(calls, job_id: str, *words: str) -> dict:
    return calls.wait(f"/api/job-status/{job_id}", lambda answer: answer["status"] in words)


def test_an_analysis_with_the_model_and_one_without(platform, ann_calls, upload):
    with FakeLLM("ok", "500") as model:
        platform.worker(
            slots=1,
            OPENROUTER_API_KEY="sk-or-v1-canary-canary",
            LLM_BASE_URL=model.base_url,
            LLM_MODEL="deepseek/deepseek-r1",
            RETRY_INITIAL_DELAY="0.05",
            LLM_CIRCUIT_THRESHOLD="2",
        )
        done = status_of(ann_calls, upload(), "completed")
        assert set(done) >= NAMES and done["error"] is None
        result = json.loads(ann_calls.download(done["resultUrl"]))
        assert result["issues"] == [] and result["model"] == "deepseek/deepseek-r1"
        done = status_of(ann_calls, upload(), "completed")
        result = json.loads(ann_calls.download(done["resultUrl"]))
        assert "llm_failure_fallback" in result["issues"] and result["insights"]
        status_of(ann_calls, upload(), "completed")
        log = platform.log("worker")
        for line in (
            "LLM call (deepseek/deepseek-r1): Attempt 2/2",
            "Circuit breaker OPENING: 2 failures within 300s window (threshold: 2)",
            "Circuit breaker is OPEN. Using fallback.",
        ):
            assert line in log, line
        assert "canary" not in log


def test_cancel_has_three_answers(platform, ann_calls, upload, ann):
    job_id = upload()
    status, answer = ann_calls("POST", f"/api/cancel?jobId={job_id}")
    assert (status, answer["jobId"], answer["status"]) == (200, job_id, "cancelled") and answer["cancelledAt"]
    assert "message" not in answer
    assert f"Job {job_id} was cancelled before processing. Skipping." in platform.log("web")
    status, again = ann_calls("POST", "/api/cancel", json.dumps({"jobId": job_id}))
    assert again == {**answer, "message": "Job was already cancelled"}
    assert balance(ann) == 1000
    platform.worker(slots=1)
    job_id = upload()
    status_of(ann_calls, job_id, "completed")
    status, refused = ann_calls("POST", f"/api/cancel?jobId={job_id}")
    assert status == 400
    assert refused == {
        "error": "Cannot cancel job with status 'completed'",
        "jobId": job_id,
        "status": "completed",
    }
    assert ann_calls("POST", "/api/cancel")[1]["errors"][0]["field"] == "jobId"


def test_timeout_and_cancel_while_it_works(platform, ann_calls, upload, ann):
    platform.env |= {"JOB_TIMEOUT_SECONDS": "8", "SIMULATED_SLOW_PROCESSING_SECONDS": "20"}
    platform.kill("web")
    platform.web()
    ann_calls.address = platform.address
    platform.worker()
    late, cancelled = upload(), upload()
    ann_calls.wait(f"/api/job-status/{cancelled}", lambda answer: answer["stage"] == "processing")
    ann_calls("POST", f"/api/cancel?jobId={cancelled}")
    failed = status_of(ann_calls, late, "failed")
    assert failed["error"] == "timeout"
    error = json.loads(ann_calls.download(failed["resultUrl"]))
    assert set(error) == {"jobId", "status", "error", "message", "timestamp"}
    assert (error["jobId"], error["status"], error["error"]) == (late, "failed", "timeout")
    until(lambda: f"Job {cancelled} was cancelled during processing." in platform.log("worker"), seconds=10)
    assert f"Job {late} has timed out" in platform.log("worker")
    assert balance(ann) == 1000


def test_shutdown_fails_what_has_one_attempt_and_gives_the_tokens_back(platform, ann_calls, upload, ann):
    platform.env |= {"SIMULATED_SLOW_PROCESSING_SECONDS": "20"}
    platform.worker(slots=1)
    job_id = upload()
    ann_calls.wait(f"/api/job-status/{job_id}", lambda answer: answer["stage"] == "processing")
    platform.kill("worker", signal.SIGTERM)
    platform.children["worker"].wait(20)
    failed = ann_calls("GET", f"/api/job-status/{job_id}")[1]
    assert (failed["status"], failed["error"]) == ("failed", "worker_shutdown")
    assert balance(ann) == 1000 and fresh(Job.objects.get()).attempt == 1
    log = platform.log("worker")
    for line in (
        "Received signal 15. Shutting down gracefully...",
        f"Marked job {job_id} as failed due to shutdown",
        "Worker shutdown complete.",
    ):
        assert line in log, line


def test_the_four_rehearsals(platform):
    """`manage.py rehearse`: each says the document's lines, ends as it says, and needs no broker and no worker."""
    lines = {
        "blob-retry": ["Attempt 2/3", "Attempt 3/3", '"status": "completed"'],
        "llm-failure": ["LLM call (deepseek/deepseek-r1): Attempt 2/2", '"status": "completed"'],
        "cancel": [" was cancelled during ", '"status": "cancelled"'],
        "timeout": [" has timed out", " timed out during processing.", '"error": "timeout"'],
    }
    for what in lines:
        platform.start(what, [sys.executable, "manage.py", "rehearse", what])
    for what, expected in lines.items():
        assert platform.children[what].wait(60) == 0, platform.log(what)
        for line in [*expected, f"{what}: as documented"]:
            assert line in platform.log(what), (what, line)
