"""Answers that go on after Django has finished with the request: event streams, and submits that wait for their job.

A view leaves a promise. Django's thread and database connection have been given back when it is kept, in the event
loop: whoever watches or waits holds neither.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from rest_framework.request import Request

from . import polls
from .hub import Hub

KEY = "jobsite.later"
Message = dict[str, Any]  # of ASGI
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Promise(Protocol):
    """What becomes of an answer. `keep` gets it as Django made it; `release` is called in the end, kept or not."""

    async def keep(self, start: Message, body: bytes, receive: Receive, send: Send) -> None: ...

    def release(self) -> None: ...


@dataclass
class Later:
    """What a request carries for its view to promise with."""

    hub: Hub
    promise: Promise | None = None
    answer: list[Message] = field(default_factory=list)  # as Django made it, once there is a promise


def later(request: Request) -> Later | None:
    """Where to leave a promise; None where no event loop serves the request (WSGI, Django's test client)."""
    return getattr(request._request, "scope", {}).get(KEY)


class LaterAnswers:
    """The ASGI application around the others: answers unchanged polls at once, and keeps promises."""

    def __init__(self, application: Callable[..., Awaitable[None]]):
        self.application = application
        self.hub = Hub()

    async def __call__(self, scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.application(scope, receive, send)
        if await polls.answered(scope, send):
            return None
        later = Later(self.hub)

        async def answer(message: Message) -> None:
            if later.promise:
                later.answer.append(message)
            else:
                await send(message)

        try:
            await self.application({**scope, KEY: later}, receive, answer)
            if later.promise and later.answer:  # none: the client has gone
                await _go_on(later.promise, later.answer, receive, send)
        finally:
            if later.promise:
                later.promise.release()


async def _go_on(promise: Promise, answer: list[Message], receive: Receive, send: Send) -> None:
    if answer[0]["status"] < 300:
        body = b"".join(message.get("body", b"") for message in answer[1:])
        await promise.keep(answer[0], body, receive, send)
    else:  # something on the way out refused it
        for message in answer:
            await send(message)


def with_headers(start: Message, *, without: tuple[str, ...] = (), **more: str) -> Message:
    """The start of an answer with other headers; keyword arguments are headers with _ for -."""
    names = {name.encode() for name in without} | {name.replace("_", "-").encode() for name in more}
    kept = [(name, value) for name, value in start["headers"] if name.lower() not in names]
    added = [(name.replace("_", "-").encode(), value.encode()) for name, value in more.items()]
    return {**start, "headers": [*kept, *added]}


async def until_gone(receive: Receive) -> None:
    """Returns once the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
