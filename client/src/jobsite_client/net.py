"""The two ways to wait. Every call of this package is written once, as a coroutine over a Net: an `AsyncNet` awaits, a
`SyncNet` blocks where the other one awaits, so that what runs over it ends without ever having been suspended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
import httpx
from httpx_sse import EventSource, ServerSentEvent

T = TypeVar("T")


class Net(Protocol):
    """What differs between the two; `options` are those of httpx."""

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """The answer, read."""
        ...

    def stream(self, method: str, url: str, **options: Any) -> AbstractAsyncContextManager[httpx.Response]:
        """The answer, its body not read yet."""
        ...

    async def read(self, answer: httpx.Response) -> None: ...

    def pieces(self, answer: httpx.Response) -> AsyncGenerator[bytes, None]:
        """The body as it comes, not decoded."""
        ...

    def events(self, answer: httpx.Response, go_on: Callable[[], bool]) -> AsyncGenerator[ServerSentEvent, None]:
        """Server-Sent Events until the body ends or, asked after each piece of it, `go_on` says no."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    async def apart(self, work: Callable[[], T]) -> T:
        """Do what waits for the disk, where it keeps nobody else waiting."""
        ...

    def interrupt(self) -> type[BaseException]:
        """What Ctrl-C raises in a call."""
        ...

    def shielded(self) -> AbstractContextManager[object]:
        """What is done in it is done to its end, though the call was interrupted."""
        ...

    async def close(self) -> None: ...


class SyncNet:
    """Blocks its thread; several may use it."""

    def __init__(self, *, timeout: float, user_agent: str, sleep: Callable[[float], None]):
        self._client = httpx.Client(timeout=timeout, headers={"User-Agent": user_agent})
        self._sleep = sleep

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        return self._client.request(method, url, **options)

    @asynccontextmanager
    async def stream(self, method: str, url: str, **options: Any) -> AsyncIterator[httpx.Response]:
        with self._client.stream(method, url, **options) as answer:
            yield answer

    async def read(self, answer: httpx.Response) -> None:
        answer.read()

    async def pieces(self, answer: httpx.Response) -> AsyncGenerator[bytes, None]:
        for piece in answer.iter_raw():
            yield piece

    async def events(self, answer: httpx.Response, go_on: Callable[[], bool]) -> AsyncGenerator[ServerSentEvent, None]:
        answer.stream = _Until(answer.stream, go_on)
        for event in EventSource(answer).iter_sse():
            yield event

    async def sleep(self, seconds: float) -> None:
        self._sleep(seconds)

    async def apart(self, work: Callable[[], T]) -> T:
        return work()

    def interrupt(self) -> type[BaseException]:
        return KeyboardInterrupt

    def shielded(self) -> AbstractContextManager[object]:
        return nullcontext()

    async def close(self) -> None:
        self._client.close()


class AsyncNet:
    """Awaits; Ctrl-C comes as the cancellation of the task."""

    def __init__(self, *, timeout: float, user_agent: str, sleep: Callable[[float], Awaitable[None]]):
        self._client = httpx.AsyncClient(timeout=timeout, headers={"User-Agent": user_agent})
        self._sleep = sleep

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        return await self._client.request(method, url, **options)

    def stream(self, method: str, url: str, **options: Any) -> AbstractAsyncContextManager[httpx.Response]:
        return self._client.stream(method, url, **options)

    async def read(self, answer: httpx.Response) -> None:
        await answer.aread()

    async def pieces(self, answer: httpx.Response) -> AsyncGenerator[bytes, None]:
        async for piece in answer.aiter_raw():
            yield piece

    def events(self, answer: httpx.Response, go_on: Callable[[], bool]) -> AsyncGenerator[ServerSentEvent, None]:
        answer.stream = _Until(answer.stream, go_on)
        return EventSource(answer).aiter_sse()

    async def sleep(self, seconds: float) -> None:
        await self._sleep(seconds)

    async def apart(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work)

    def interrupt(self) -> type[BaseException]:
        return anyio.get_cancelled_exc_class()

    def shielded(self) -> AbstractContextManager[object]:
        return anyio.CancelScope(shield=True)

    async def close(self) -> None:
        await self._client.aclose()


class _Until(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that ends when `go_on` says so."""

    def __init__(self, stream: Any, go_on: Callable[[], bool]):
        self.stream, self.go_on = stream, go_on

    def __iter__(self) -> Any:
        for piece in self.stream:
            yield piece
            if not self.go_on():
                return

    async def __aiter__(self) -> Any:
        async for piece in self.stream:
            yield piece
            if not self.go_on():
                return

    def close(self) -> None:
        self.stream.close()

    async def aclose(self) -> None:
        await self.stream.aclose()
