"""The fake RunPod's endpoint without its HTTP: jobs, the workers that draw them, and the faults that befall both."""

import base64
import contextlib
import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from jobs.engines import process, remote_worker
from jobs.errors import JobError

FAULTS = {
    # /run
    "unauthorized": "401 to all calls",
    "throttled": "429 with Retry-After: 1",
    "broken": "500, not taken",
    "lost_request": "closes the connection without taking it",
    "lost_answer": "takes it and closes the connection",
    "slow_answer": "takes it and answers after SLOW seconds",
    # life
    "cold_start": "stays IN_QUEUE for COLD seconds: a worker wakes up",
    "stuck_queue": "stays IN_QUEUE until its ttl",
    "stuck_work": "IN_PROGRESS until its executionTimeout",
    "fails": "FAILED, as the SDK tells an exception",
    "script_error": "FAILED, with a script, control characters and the caller's key in the error text",
    # /status
    "status_broken": "500",
    "status_slow": "answers after SLOW seconds",
    "flapping": "COMPLETED once, IN_PROGRESS ever after",
    "expired": "404 once it has ended: its result is no longer kept",
    "no_output": "COMPLETED without output",
    # /cancel
    "cancel_broken": "500",
    "cancel_late": "it completes before the cancel comes: COMPLETED",
    # the webhook
    "webhook_twice": "comes twice",
    # /requests
    "no_list": "404",
    "blind_list": "the list does not show inputs",
    # output
    "by_url": "the result behind an address of this server",
    "url_file": "file:///etc/passwd",
    "url_internal": "http://169.254.169.254/, a cloud's metadata",
    "url_redirect": "an address of this server that redirects to another",
    "url_endless": "an address of this server that never ends",
    "url_huge": "an address that says it holds 100 GB",
    "wrong_type": "a web page instead of a result",
    "half": "the first half of the result",
    "no_base64": "text that is no base64",
}


@dataclass
class Job:
    """One job of the endpoint, and what it was asked to do wrong: fault → times left, -1 for ever."""

    id: str
    body: dict[str, Any]
    faults: dict[str, int]
    at: float = field(default_factory=time.monotonic)
    status: str = "IN_QUEUE"
    began: float = 0.0
    ended_at: float = 0.0
    output: Any = None
    error: str = ""
    made: bytes = b""
    told: int = 0  # final answers to /status

    @property
    def ended(self) -> bool:
        return self.ended_at > 0

    def end(self, status: str, *, output: Any = None, error: str = "") -> None:
        if not self.ended:
            self.status, self.output, self.error = status, output, error
            self.ended_at = time.monotonic()


class Endpoint:
    """One queue-based endpoint with a few workers. The pages that it follows are named in `fake_runpod`."""

    def __init__(self, *, key: str, name: str, workers: int, cold: float, files: str = ""):
        self.key, self.name, self.cold = key, name, cold
        self.files = files  # address of the bucket in which results lie
        self.jobs: dict[str, Job] = {}
        self.plan: dict[str, int] = {}  # fault → times left, for all jobs
        self.asked: dict[str, dict[str, int]] = {}  # the same by prompt
        self.hooks: list[int] = []  # what its webhooks were answered
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._free = threading.Semaphore(workers)

    def hits(self, fault: str, job: Job | None = None) -> bool:
        """Whether a fault is to happen now, by the job's own words or the plan; takes one of its times."""
        with self._lock:
            for plan in ([job.faults] if job else []) + [self.plan]:
                if left := plan.get(fault, 0):
                    plan[fault] = left - 1 if left > 0 else left
                    return True
        return False

    def take(self, body: dict[str, Any], faults: dict[str, int]) -> Job:
        """Queue a job. Its id is a UUID with a suffix, as in SEND, "/status"."""
        job = Job(f"{uuid.uuid4()}-u1", body, faults)
        self.jobs[job.id] = job
        threading.Thread(target=self._work_and_call, args=(job,), daemon=True).start()
        return job

    def _work_and_call(self, job: Job) -> None:
        """SEND, "Webhook notifications": the job's state is sent to the address that came with it. Ours is not repeated
        where it is not taken."""
        self._work(job)
        address = job.body.get("webhook")
        if not address:
            return
        for _ in range(2 if self.hits("webhook_twice", job) else 1):
            body = json.dumps({"id": job.id, "status": job.status, "output": job.output, "error": job.error})
            with contextlib.suppress(httpx.HTTPError):
                self.hooks.append(httpx.post(address, content=body, timeout=5).status_code)

    def over(self, job: Job) -> None:
        """End what is past its limits: SEND, "Execution policies"; STATES, TIMED_OUT."""
        policy = job.body.get("policy") or {}
        now = time.monotonic()
        too_old = now - job.at > policy.get("ttl", 86_400_000) / 1000
        too_long = job.began and now - job.began > policy.get("executionTimeout", 600_000) / 1000
        if too_old or too_long:
            job.end("TIMED_OUT", error="job timed out")

    def _work(self, job: Job) -> None:
        """A worker's side: wait for a free one, wake it up, draw. STATES: IN_QUEUE, IN_PROGRESS, COMPLETED, FAILED."""

        def stopped() -> bool:
            self.over(job)
            return job.ended or self.closing.is_set()

        stays = self.hits("stuck_queue", job)
        wakes_at = job.at + (self.cold if self.hits("cold_start", job) else 0.0)
        while stays or time.monotonic() < wakes_at:
            if stopped():
                return
            time.sleep(0.02)
        with self._free, TemporaryDirectory(prefix="fake-runpod-") as folder:
            if stopped():
                return
            job.status, job.began = "IN_PROGRESS", time.monotonic()
            hangs = self.hits("stuck_work", job)
            while hangs and not stopped():
                time.sleep(0.02)
            try:
                made = remote_worker.work(
                    job.body.get("input"),
                    Path(folder),
                    report=lambda done: self._report(job, done),
                    stop=stopped,
                )
            except process.Stopped:
                return
            except (JobError, remote_worker.BadRequest) as error:
                job.end("FAILED", error=_sdk_error(error, str(error)))
                return
            self._deliver(job, made.read_bytes())

    def _report(self, job: Job, done: float) -> None:
        """HANDLERS, "Progress updates": what the worker reports is the `output` of /status while IN_PROGRESS."""
        if not job.ended:
            job.output = {"progress": done}

    def _deliver(self, job: Job, made: bytes) -> None:
        if self.hits("fails", job):
            return job.end("FAILED", error=_sdk_error(RuntimeError(), "CUDA out of memory at /workspace/model.py"))
        if self.hits("script_error", job):
            text = f"<script>alert(1)</script>\x1b[31m red\r\nWARNING forged line {self.key} http://10.0.0.1/secret"
            return job.end("FAILED", error=text)
        job.made = made
        word = "picture" if job.body["input"]["task"] == "ENHANCE" else "video"
        inline, url = f"{word}_base64", f"{word}_url"
        address = f"{self.files}/{job.id}"
        outputs: dict[str, Any] = {
            "no_output": None,
            "by_url": {url: address},
            "url_file": {url: "file:///etc/passwd"},
            "url_internal": {url: "http://169.254.169.254/latest/meta-data/"},
            "url_redirect": {url: f"{address}/redirect"},
            "url_endless": {url: f"{address}/endless"},
            "url_huge": {url: f"{address}/huge"},
            "wrong_type": {inline: base64.b64encode(b"<html>not a video</html>" * 10).decode()},
            "half": {inline: base64.b64encode(made[: len(made) // 2]).decode()},
            "no_base64": {inline: "%%%"},
        }
        for fault, output in outputs.items():
            if self.hits(fault, job):
                return job.end("COMPLETED", output=output)
        return job.end("COMPLETED", output={inline: base64.b64encode(made).decode()})


def _sdk_error(error: Exception, message: str) -> str:
    """An exception as RunPod's SDK 1.12 tells it in `error` (runpod/serverless/modules/rp_job.py)."""
    told = {
        "error_type": str(type(error)),
        "error_message": message,
        "error_traceback": "Traceback …",
        "worker_id": "w1",
    }
    return json.dumps(told)
