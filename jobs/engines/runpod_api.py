"""RunPod serverless: the client of one queue-based endpoint, in five calls.

Written after docs.runpod.io, "Send API requests" (serverless/endpoints/send-requests), "Operation reference"
(serverless/endpoints/operation-reference) and "Job states and metrics" (serverless/endpoints/job-states).
"""

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from jobs.engines import outbound
from jobs.errors import ErrorCode, JobError

ANSWER_BYTES = 64 * 1024**2  # of one answer: outputs of /run are at most 20 MB ("Operation reference")
REQUEST_BYTES = 10_000_000  # "Maximum payload size" of /run
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}  # "Job states and metrics"
SECONDS = 10.0  # that one call may take
BUSY = {500, 503}  # RunPod's own word that it failed; other 5xx are a gateway's, behind which it may have been taken


class RunpodError(Exception):
    """RunPod could not be used; the text is for operators and users, and holds no secret. `retry_after` in seconds."""

    def __init__(self, words: str, *, status: int | None = None, retry_after: float | None = None):
        super().__init__(words)
        self.status, self.retry_after = status, retry_after


class Unreachable(RunpodError):
    """No connection: nothing was sent."""


class Busy(RunpodError):
    """RunPod answered that it failed or is not there (500, 503): nothing was taken."""


class Throttled(RunpodError):
    """Too many requests (429); nothing was taken."""


class Rejected(RunpodError):
    """RunPod will not have it (400, 401, 403, 404 and such): trying again does not help."""


class NoAnswer(RunpodError):
    """It was sent, and no answer came that can be understood: it may have been taken."""


@dataclass(frozen=True)
class State:
    """A job's state as /status tells it. `output` is the result once COMPLETED, the worker's last report before."""

    status: str
    output: Any = None
    error: str = ""

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class Client:
    """The calls of one endpoint. Each raises a RunpodError; `with` closes its connections.

    The key is sent in a header and never told: not in errors, not in `repr`. Redirects are not followed.
    """

    def __init__(self, key: str, endpoint: str, base: str, *, seconds: float = SECONDS):
        self.local = outbound.is_loopback_url(base)
        self._key = key
        self._http = httpx.Client(
            base_url=f"{base.rstrip('/')}/{quote(endpoint, safe='')}/",
            headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
            timeout=httpx.Timeout(seconds, connect=min(seconds, 5.0)),
            trust_env=not self.local,  # a proxy leads to RunPod, not to the fake
            # The scheme in any letters; where it is http, no certificates are loaded, which would take 30 ms.
            verify=urlsplit(base).scheme == "https",
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def __repr__(self) -> str:
        return f"Client({self._http.base_url.host})"

    def run(self, body: bytes) -> str:
        """POST /run: the new job's id. `body` is JSON with `input` and `policy`. See `Unreachable` to `NoAnswer` for
        what is known of the job when it fails."""
        answer = self._ask("POST", "run", content=body)
        if not (remote_id := _id_in(answer)):
            raise NoAnswer("RunPod's answer names no job")
        return remote_id

    def status(self, remote_id: str) -> State:
        """GET /status/<id>. Rejected with `status` 404 if RunPod does not know it (any more)."""
        answer = self._ask("GET", f"status/{quote(remote_id, safe='')}")
        if not isinstance(answer, dict) or not isinstance(answer.get("status"), str):
            raise NoAnswer("RunPod's answer names no state")
        if answer.get("id", remote_id) != remote_id:
            raise NoAnswer("RunPod answered for another job")
        return State(answer["status"].upper(), answer.get("output"), self.clean(answer.get("error")))

    def cancel(self, remote_id: str, *, seconds: float = SECONDS) -> str:
        """POST /cancel/<id>: the job's state afterwards, `gone` if RunPod does not know it (any more)."""
        try:
            answer = self._ask("POST", f"cancel/{quote(remote_id, safe='')}", timeout=seconds)
        except Rejected as error:
            if error.status == 404:
                return "gone"
            raise
        status = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(status, str) or status not in ENDED:
            raise NoAnswer("RunPod did not say that it was cancelled")
        return status

    def health(self) -> dict[str, Any]:
        """GET /health: counts of the endpoint's jobs and workers."""
        answer = self._ask("GET", "health")
        if not isinstance(answer, dict):
            raise NoAnswer("RunPod's answer is no object")
        return answer

    def find(self, call_id: str) -> str | None:
        """The id of the job whose input carries `call_id`, from GET /requests; None if it is not in that list.

        RunPod names /requests in its table of rate limits and does not document its answer: what is not a list of
        jobs with their inputs raises NoAnswer, since then its silence about a job says nothing.
        """
        answer = self._ask("GET", "requests")
        lists = [answer] if isinstance(answer, list) else [v for v in _values(answer) if isinstance(v, list)]
        if not lists:
            raise NoAnswer("RunPod's list of requests is not understood")
        jobs = [job for jobs in lists for job in jobs]
        for job in jobs:
            if (remote_id := _id_in(job)) and call_id in json.dumps(job):
                return remote_id
        if not all(isinstance(job, dict) and "input" in job for job in jobs):
            raise NoAnswer("RunPod's list of requests does not show their inputs")
        return None

    def clean(self, text: Any) -> str:
        """An error text of the worker's for people: one line, printable, cut, without addresses, paths and our key.

        RunPod's SDK sends an exception as JSON with `error_message` and a traceback: only the message is told.
        """
        if isinstance(text, str) and text.lstrip().startswith("{"):
            with contextlib.suppress(ValueError, RecursionError):
                text = json.loads(text)
        if isinstance(text, dict):
            text = text.get("error_message") or text.get("message") or ""
        line = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", str(text or "")[:20_000]).replace(self._key, "…")
        line = re.sub(r"\b\w+://\S+|(?<![\w.])/(?:[^\s/:'\"]+/)+[^\s/:'\"]*", "…", line)
        return " ".join("".join(c if c.isprintable() else " " for c in line).split())[:300]

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        """One call; the answer's JSON."""
        headers = {"Content-Type": "application/json"} if "content" in options else None
        try:
            with self._http.stream(method, path, headers=headers, **options) as answer:
                body = _bounded(answer)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreachable("RunPod cannot be reached") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoAnswer("RunPod did not answer") from error
        _judge(answer)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise NoAnswer("RunPod's answer is no JSON") from error


def client(options: Mapping[str, Any]) -> Client:
    """The client that the settings describe. JobError(config_error) if they do not."""
    key, endpoint, base = (options[f"RUNPOD_{name}"] for name in ("API_KEY", "ENDPOINT_ID", "BASE_URL"))
    missing = [name for name, value in (("RUNPOD_API_KEY", key), ("RUNPOD_ENDPOINT_ID", endpoint)) if not value]
    if missing:
        raise JobError(ErrorCode.config_error, f"RunPod is not configured: {' and '.join(missing)} not set.")
    address = urlsplit(base)
    if not address.hostname or address.username or not (address.scheme == "https" or outbound.is_loopback_url(base)):
        raise JobError(ErrorCode.config_error, "RunPod is not configured: RUNPOD_BASE_URL must be an https address.")
    if not (key.isascii() and key.isprintable()):
        raise JobError(ErrorCode.config_error, "RunPod is not configured: RUNPOD_API_KEY is not a key.")
    return Client(key, endpoint, base)


def _judge(answer: httpx.Response) -> None:
    """Raise what the answer's code means ("Send API requests", Error handling); its text may hold anything."""
    code = answer.status_code
    if 200 <= code < 300:
        return
    words = {
        400: "RunPod calls the request malformed",
        401: "RunPod does not accept the API key",
        403: "RunPod does not accept the API key",
        404: "RunPod knows no such endpoint or job",
        413: "the request is too large for RunPod",
        429: "RunPod takes no more requests now",
    }.get(code, f"RunPod answered {code}")
    kind: Callable[..., RunpodError] = (
        Throttled if code == 429 else Busy if code in BUSY else NoAnswer if code >= 500 else Rejected
    )
    after = answer.headers.get("Retry-After", "")
    raise kind(words, status=code, retry_after=float(after) if re.fullmatch(r"\d{1,5}", after) else None)


def _bounded(answer: httpx.Response) -> bytes:
    body = bytearray()
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > ANSWER_BYTES:
            raise NoAnswer("RunPod's answer is too long")
    return bytes(body)


def _id_in(answer: Any) -> str:
    """The id in an answer, if it is one: it goes into addresses and rows."""
    remote_id = answer.get("id") if isinstance(answer, dict) else None
    return (
        remote_id if isinstance(remote_id, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", remote_id) else ""
    )


def _values(answer: Any) -> list[Any]:
    return list(answer.values()) if isinstance(answer, dict) else []
