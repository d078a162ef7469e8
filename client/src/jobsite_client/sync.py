"""The client for programs that do not await: each call of `Calls`, run to its end where it stands."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from .client import USER_AGENT, Calls
from .net import SyncNet

P = ParamSpec("P")
T = TypeVar("T")


def done(call: Coroutine[Any, Any, T]) -> T:
    """What a coroutine over a SyncNet returns. Needs no event loop, and does not mind one that runs."""
    try:
        call.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("nothing over a SyncNet is suspended")


def each(rows: AsyncGenerator[T, None]) -> Iterator[T]:
    """What an asynchronous generator over a SyncNet yields."""
    try:
        while True:
            try:
                row = done(rows.__anext__())
            except StopAsyncIteration:
                return
            yield row
    finally:
        done(rows.aclose())


def plain(method: Callable[Concatenate[Calls, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Jobsite, P], T]:
    """The method that returns what `method` is awaited for; same parameters, types and docstring."""

    @wraps(method)
    def call(self: Jobsite, /, *args: P.args, **options: P.kwargs) -> T:
        return done(method(self._calls, *args, **options))

    return call


def iterated(
    method: Callable[Concatenate[Calls, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Jobsite, P], Iterator[T]]:
    """The same for a method that is iterated."""

    @wraps(method)
    def call(self: Jobsite, /, *args: P.args, **options: P.kwargs) -> Iterator[T]:
        return each(method(self._calls, *args, **options))

    return call


class Jobsite:
    """`Jobsite("https://jobs.example.com", key)`; without arguments from JOBSITE_URL, JOBSITE_KEY or `jobsite login`.

    Every request is tried again after a lost connection, 429 and 5xx: `retries` times, after `Retry-After` or growing
    pauses. Each POST carries an Idempotency-Key, the same with every try, so nothing is done or charged twice.
    `timeout` is seconds until a silent connection counts as lost. Use it in a `with`, or `close()` it. One client may
    be used by several threads. `AsyncClient` is the same to await.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 4,
        sleep: Callable[[float], None] = time.sleep,
    ):
        net = SyncNet(timeout=timeout, user_agent=USER_AGENT, sleep=sleep)
        self._calls = Calls(url, key, net, timeout=timeout, retries=retries)

    def __repr__(self) -> str:
        return f"Jobsite({self._calls.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    submit = plain(Calls.submit)
    run = plain(Calls.run)
    subscribe = iterated(Calls.subscribe)
    estimate = plain(Calls.estimate)
    get = plain(Calls.get)
    list = iterated(Calls.list)
    stream = iterated(Calls.stream)
    wait = plain(Calls.wait)
    cancel = plain(Calls.cancel)
    retry = plain(Calls.retry)
    delete = plain(Calls.delete)
    explain = plain(Calls.explain)
    logs = iterated(Calls.logs)
    upload = plain(Calls.upload)
    download = plain(Calls.download)
    open = plain(Calls.open)
    balance = plain(Calls.balance)
    transactions = iterated(Calls.transactions)
    close = plain(Calls.close)
