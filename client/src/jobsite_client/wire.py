"""One request and its answer: the key, the tries, the errors. What is sent goes over a Net; nothing else sends."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin

import httpx

from .errors import BY_STATUS, ApiError, ConnectionFailed, FieldError, ServerError, UnexpectedAnswer
from .net import Net

LONGEST_PAUSE = 60.0  # seconds; who is told to wait longer is told so at once
WORTH_ANOTHER_TRY = {429, 500, 502, 503, 504, 507}
REDIRECTS = {301, 302, 303, 307, 308}


class Bearer(httpx.Auth):
    """Puts the key on requests. It is nowhere else, and shows itself to nobody."""

    __slots__ = ("_key",)

    def __init__(self, key: str):
        self._key = key.strip()
        if not self._key.isascii() or not self._key.isprintable() or " " in self._key:
            raise ValueError("The key has characters that no key has.")

    def __repr__(self) -> str:
        return "Bearer(…)"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._key}"
        yield request


class Wire:
    """Requests to one platform. Only its own scheme, host and port ever get the key; redirects are not followed."""

    def __init__(self, url: str, key: str, net: Net, *, timeout: float, retries: int):
        parts = httpx.URL(url.rstrip("/"))
        if parts.scheme not in ("http", "https") or not parts.host or parts.userinfo or set("?#") & set(url):
            raise ValueError("The address must look like https://jobs.example.com.")
        self.url, self.net, self.timeout, self.retries = str(parts), net, timeout, retries
        self._auth = Bearer(key)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Callable[[], Mapping[str, Any]] = dict,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        to: str = "",
        retries: int | None = None,
    ) -> httpx.Response:
        """The answer: 2xx or 304. `body` is called for every try; `to` is another server's address, which gets no key.

        Raises an ApiError, ConnectionFailed or UnexpectedAnswer when the tries are used up or none would help.
        """
        headers = dict(headers or {})
        tries = self.retries if retries is None else retries
        for tried in range(tries + 1):
            problem: ApiError | ConnectionFailed | UnexpectedAnswer
            pause = min(LONGEST_PAUSE, 0.5 * 2**tried) * random.uniform(0.5, 1)
            try:
                auth = None if to else self._auth
                url = to or self.url + path
                answer = await self.net.request(method, url, params=params, headers=headers, auth=auth, **body())
            except httpx.TransportError as error:
                problem = self._unreachable(error, headers)
            else:
                if answer.is_success or answer.status_code == 304:
                    return answer
                problem = problem_of(answer, headers.get("Idempotency-Key"))
                if isinstance(problem, ApiError):
                    problem.tried = tried
                    pause = pause if problem.retry_after is None else problem.retry_after
                if answer.status_code not in WORTH_ANOTHER_TRY:
                    raise problem
            # None: the cause holds a request with the key on it, and whoever prints locals would print that
            if tried == tries or pause > LONGEST_PAUSE:
                raise problem from None
            await self.net.sleep(pause)
        raise AssertionError("the last try returns or raises")

    async def json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The answer's JSON object."""
        return json_of(await self.ask(method, path, **options))

    @asynccontextmanager
    async def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, read_timeout: float | None = None
    ) -> AsyncIterator[httpx.Response]:
        """A GET whose body is read piece by piece; one try. A redirect is followed, with the key only to where it came
        from. Raises what `ask` raises; also while the body is read."""
        address = self.url + path
        timeout = httpx.Timeout(self.timeout, read=read_timeout or self.timeout)
        try:
            for _ in range(4):
                auth = self._auth if _origin(address) == _origin(self.url) else None
                async with self.net.stream("GET", address, headers=headers, auth=auth, timeout=timeout) as answer:
                    if answer.status_code in REDIRECTS and "location" in answer.headers:
                        address = urljoin(address, answer.headers["location"])
                        continue
                    if not answer.is_success:
                        await self.net.read(answer)
                        raise problem_of(answer)
                    yield answer
                    return
            raise UnexpectedAnswer("The download is redirected again and again.")
        except httpx.TransportError as error:
            raise self._unreachable(error, {}) from None

    def _unreachable(self, error: httpx.TransportError, headers: Mapping[str, str]) -> ConnectionFailed:
        what = "took too long" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
        return ConnectionFailed(f"{self.url}: {what}", idempotency_key=headers.get("Idempotency-Key"))


def json_of(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; UnexpectedAnswer if it is none."""
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UnexpectedAnswer(f"{_origin(str(answer.url))} did not answer as a Jobsite does; is the address right?")
    return found


def problem_of(answer: httpx.Response, idempotency_key: str | None = None) -> ApiError | UnexpectedAnswer:
    """What an answer that is no success says (RFC 9457 problem+json, or whatever a proxy on the way made)."""
    status = answer.status_code
    if status < 400:
        to = _origin(urljoin(str(answer.url), answer.headers.get("location", "")))
        return UnexpectedAnswer(f"{_origin(str(answer.url))} redirects to {to}; use that address if you trust it.")
    try:
        body = answer.json()
    except ValueError:
        body = None
    body = body if isinstance(body, dict) else {}
    kind = BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    errors = body.get("errors")
    return kind(
        status,
        str(body.get("code", "")),
        str(body.get("detail") or f"HTTP {status} {answer.reason_phrase}"),
        fields=tuple(
            FieldError(*(str(one.get(name, "")) for name in FieldError._fields))
            for one in (errors if isinstance(errors, list) else [])
            if isinstance(one, dict)
        ),
        request_id=str(body.get("request_id") or answer.headers.get("x-request-id", "")),
        retryable=bool(body.get("retryable", status in WORTH_ANOTHER_TRY)),
        docs=str(body.get("docs", "")),
        retry_after=seconds_of(answer.headers.get("retry-after")),
        idempotency_key=idempotency_key,
    )


def seconds_of(retry_after: str | None) -> float | None:
    """Retry-After as seconds from now: a number or an HTTP date (RFC 9110); None if there is none that makes sense."""
    if not retry_after:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _origin(url: str) -> str:
    """`https://host:port`, without whatever else an address may tell."""
    parts = httpx.URL(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.scheme}://{parts.host}:{port}"
