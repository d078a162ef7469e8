"""A RunPod to rehearse with: a local HTTP server that speaks the protocol of one queue-based serverless endpoint.

It really draws (the preview engine), costs nothing, and does on demand what RunPod and networks do on bad days. Each
answer names the page of docs.runpod.io that it follows:

- SEND: "Send API requests", serverless/endpoints/send-requests
- OPERATIONS: "Operation reference", serverless/endpoints/operation-reference
- STATES: "Job states and metrics", serverless/endpoints/job-states
- HANDLERS: "Handler functions", serverless/workers/handler-functions

A fault is asked for by a word in a prompt (`#throttled`, `#throttled:2` for the first two times) or, for all requests,
by `POST /control {"faults": {"throttled": 2}}` (-1: for ever; the whole plan is replaced).
"""

import hmac
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from jobs.engines.fake_runpod_jobs import FAULTS, Endpoint, Job

RETENTION = 1800.0  # seconds that a result is kept: SEND, "/run"
REQUEST_BYTES = 10_000_000  # SEND, "/run": "a maximum payload size of 10 MB"


class FakeRunpod(Endpoint):
    """The server: `with FakeRunpod() as fake:` runs it in threads of this process until the block ends.

    `requests` is every call that came, as (method, path), `jobs` all jobs by id. `cold` and `slow` are the seconds of
    the faults of that name.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        key: str = "rehearsal-key",
        endpoint: str = "rehearsal",
        workers: int = 2,
        cold: float = 20.0,
        slow: float = 15.0,
    ):
        super().__init__(key=key, name=endpoint, workers=workers, cold=cold)
        self.slow = slow
        self.requests: list[tuple[str, str]] = []
        self._http = _Server((host, port), _Handler)
        self._http.fake = self
        self.address = f"http://{host}:{self._http.server_address[1]}"
        self.base_url = f"{self.address}/v2"  # what RUNPOD_BASE_URL is to be
        self.files = f"{self.address}/files"

    def serve(self) -> None:
        """Answer until `close` is called from another thread."""
        self._http.serve_forever(poll_interval=0.05)

    def __enter__(self) -> "FakeRunpod":
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    def calls(self, word: str) -> int:
        """How many calls there were whose path holds `word`."""
        return sum(word in path for _, path in self.requests)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    fake: FakeRunpod

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    job: Job | None = None

    def log_message(self, format: str, *args: Any) -> None:
        """Calls are kept in `requests`; the terminal stays quiet."""

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def _route(self) -> None:
        self.fake = self.server.fake
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(min(length, 4 * REQUEST_BYTES))
        self.fake.requests.append((self.command, self.path))
        if self.path == "/control" and self.command == "POST":
            return self._control(content)
        if self.path.startswith("/files/"):
            return self._file(*self.path.removeprefix("/files/").partition("/")[::2])
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.fake.hits("unauthorized") or not hmac.compare_digest(given.encode(), self.fake.key.encode()):
            return self._answer(401, {"error": "unauthorized"})  # SEND, "Error handling and troubleshooting"
        version, endpoint, verb, *rest = [*self.path.strip("/").split("/"), "", "", ""][:4]
        routes = {
            ("POST", "run"): self._run,
            ("GET", "status"): self._status,
            ("POST", "cancel"): self._cancel,
            ("GET", "health"): self._health,
            ("GET", "requests"): self._requests,
        }
        route = routes.get((self.command, verb))
        if (version, endpoint) != ("v2", self.fake.name) or route is None:
            return self._answer(404, {"error": "not found"})  # SEND, "Error handling": "Check your endpoint ID"
        self.job = self.fake.jobs.get(rest[0])
        return route(content)

    def _answer(self, code: int, body: dict[str, Any] | list[Any], **headers: str) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _run(self, content: bytes) -> None:
        """OPERATIONS, "/run": `{"id": …, "status": "IN_QUEUE"}`. SEND: 400 for a bad request, 429 with too many."""
        fake = self.fake
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        if len(content) > REQUEST_BYTES or not isinstance(body, dict) or not isinstance(body.get("input"), dict):
            return self._answer(400, {"error": "the body must be JSON with an object `input`, at most 10 MB"})
        policy = body.get("policy") or {}
        if (
            policy.get("executionTimeout", 6000) <= 5000 or policy.get("ttl", 10_000) < 10_000
        ):  # SEND, "Execution policies"
            return self._answer(400, {"error": "executionTimeout must be over 5000, ttl at least 10000 ms"})
        faults = self._faults(body)
        job = Job("", body, faults)
        if fake.hits("unauthorized", job):
            return self._answer(401, {"error": "unauthorized"})
        if fake.hits("throttled", job):
            return self._answer(429, {"error": "too many requests"}, Retry_After="1")  # SEND, "Rate limits"
        if fake.hits("broken", job):
            return self._answer(500, {"error": "internal server error"})  # SEND, "Error handling"
        if fake.hits("lost_request", job):
            return self._hang_up()
        job = fake.take(body, faults)
        if fake.hits("lost_answer", job):
            return self._hang_up()
        if fake.hits("slow_answer", job):
            time.sleep(fake.slow)
        return self._answer(200, {"id": job.id, "status": "IN_QUEUE"})

    def _faults(self, body: dict[str, Any]) -> dict[str, int]:
        """The faults that a prompt asks for. A request that is made again finds those used up that were counted."""
        prompt = str((body["input"].get("params") or {}).get("prompt", ""))
        asked = {
            name: int(times or -1)
            for name, times in re.findall(r"#([a-z0-9_]+)(?::(\d{1,3}))?", prompt)
            if name in FAULTS
        }
        return self.fake.asked.setdefault(prompt, asked) if asked else {}

    def _status(self, _: bytes) -> None:
        """OPERATIONS, "/status": id, status, delayTime, executionTime, `output` once COMPLETED; SEND, "/run": results
        are kept for 30 minutes; SEND, "Error handling": 404 for what is not known."""
        fake, job = self.fake, self.job
        if job is None:
            return self._answer(404, {"error": "job not found"})
        if fake.hits("status_broken", job):
            return self._answer(500, {"error": "internal server error"})
        if fake.hits("status_slow", job):
            time.sleep(fake.slow)
        fake.over(job)
        if job.ended:
            job.told += 1
            if time.monotonic() - job.ended_at > RETENTION or fake.hits("expired", job):
                return self._answer(404, {"error": "job not found"})
            if job.told > 1 and fake.hits("flapping", job):
                return self._answer(200, {"id": job.id, "status": "IN_PROGRESS", "delayTime": 1})
        now = time.monotonic()
        body = {"id": job.id, "status": job.status, "delayTime": int(((job.began or now) - job.at) * 1000)}
        if job.began:
            body["executionTime"] = int(((job.ended_at or now) - job.began) * 1000)
        body |= {name: value for name, value in (("output", job.output), ("error", job.error)) if value}
        return self._answer(200, body)

    def _cancel(self, _: bytes) -> None:
        """OPERATIONS, "/cancel": "returns immediately with the canceled status"."""
        fake, job = self.fake, self.job
        if job is None or (job.ended and fake.hits("expired", job)):
            return self._answer(404, {"error": "job not found"})
        if fake.hits("cancel_broken", job):
            return self._answer(500, {"error": "internal server error"})
        if fake.hits("cancel_late", job):
            job.end("COMPLETED", output={"video_base64": ""})
        job.end("CANCELLED")
        return self._answer(200, {"id": job.id, "status": job.status})

    def _health(self, _: bytes) -> None:
        """OPERATIONS, "/health": counts of jobs and workers."""
        states = [job.status for job in self.fake.jobs.values()]
        jobs = {
            "completed": states.count("COMPLETED"),
            "failed": states.count("FAILED") + states.count("TIMED_OUT"),
            "inProgress": states.count("IN_PROGRESS"),
            "inQueue": states.count("IN_QUEUE"),
            "retried": 0,
        }
        running = jobs["inProgress"]
        return self._answer(200, {"jobs": jobs, "workers": {"idle": 0 if running else 1, "running": running}})

    def _requests(self, _: bytes) -> None:
        """SEND, "Rate limits and quotas" names GET /requests and no page describes its answer: this form is ours."""
        jobs = list(self.fake.jobs.values())
        if any(self.fake.hits("no_list", job) for job in [*jobs, None]):
            return self._answer(404, {"error": "not found"})
        shown = [{"id": job.id, "status": job.status, "input": job.body["input"]} for job in jobs]
        if any(self.fake.hits("blind_list", job) for job in [*jobs, None]):
            shown = [{"id": entry["id"], "status": entry["status"]} for entry in shown]
        return self._answer(200, {"requests": shown})

    def _file(self, job_id: str, how: str) -> None:
        """A bucket with results. HANDLERS, "Payload limits": results over the limit are stored, and their link told."""
        job = self.fake.jobs.get(job_id)
        if job is None:
            return self._answer(404, {"error": "no such file"})
        if how == "redirect":
            return self._answer(302, {}, Location=f"/files/{job_id}")
        length = {"huge": 100 * 10**9, "endless": 10**12}.get(how, len(job.made))
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        if how != "endless":
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(job.made)
        return self._go_on(how)

    def _go_on(self, how: str) -> None:
        while how == "endless" and not self.fake.closing.is_set():
            self.wfile.write(bytes(65536))

    def _control(self, content: bytes) -> None:
        """Ours, not RunPod's: replace the plan of faults."""
        try:
            plan = json.loads(content)["faults"]
            wrong = [name for name in plan if name not in FAULTS]
            plan = {name: int(times) for name, times in plan.items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            return self._answer(400, {"error": 'send {"faults": {"throttled": 2}}'})
        if wrong:
            return self._answer(400, {"error": f"unknown: {', '.join(wrong)}", "faults": FAULTS})
        self.fake.plan = plan
        return self._answer(200, {"faults": plan})
