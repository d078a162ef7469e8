"""Who is watching, in this process: one look at the database every half second serves them all.

An idle viewer holds no thread and no database connection; while nobody watches, nothing is asked.
"""

import asyncio
import logging
import random
import signal
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.conf import settings
from django.db import Error, connection

from ..errors import ErrorCode, Refused
from . import access, feed
from .access import Credential

log = logging.getLogger(__name__)
Value = TypeVar("Value")

TICK = 0.5  # seconds between two looks
ACCESS_SECONDS = 2.0  # a key that was revoked, a session that has ended, is noticed within this and one look
GONE_SECONDS = 10.0  # a job that was deleted
BEAT_SECONDS = 15.0  # a comment, to whoever was sent nothing for so long
LONGEST = 600.0  # seconds that a viewer stays; half of it at least, so that not all come back at once
MOST_PENDING = 1000  # messages that a slow reader may leave lying; then it has to come back
BEAT = b": still here\n"  # no empty line: some clients would take it for a message

_looking = ThreadPoolExecutor(1, "live-look")  # a crowd that arrives does not hold up the looks
_asking = ThreadPoolExecutor(2, "live-ask")


async def ask(function: Callable[..., Value], *args: Any, executor: ThreadPoolExecutor = _asking) -> Value:
    """Run `function`, which asks the database, in a thread; the connection goes back afterwards."""
    return await asyncio.get_running_loop().run_in_executor(executor, _asked, function, *args)


def _asked(function: Callable[..., Value], *args: Any) -> Value:
    try:
        return function(*args)
    except Error:
        connection.close()
        raise
    finally:
        if connection.vendor != "sqlite":  # a file's connection is dear to open and costs nobody anything
            connection.close()


class Viewer:
    """One who watches a job, or all jobs of an owner. Lives in the event loop."""

    def __init__(self, credential: Credential, *, job_id: uuid.UUID | None = None, until: float | None = None):
        self.credential = credential
        self.job_id = job_id  # None: all jobs of the credential's user
        now = time.monotonic()
        self.until = min(now + random.uniform(LONGEST / 2, LONGEST), until or float("inf"))
        self.pending: dict[Any, bytes] = {}
        self.over = False
        self.cut = False  # over, and not even what is pending may be sent
        self.beat_at = now + BEAT_SECONDS
        self._wake = asyncio.Event()

    def tell(self, key: Any, text: bytes, *, last: bool = False) -> None:
        """Have `text` sent; in place of what has the same key and was not sent yet. `last`: nothing comes after it."""
        if self.over:
            return
        self.pending.pop(key, None)
        self.pending[key] = text
        self.beat_at = time.monotonic() + BEAT_SECONDS
        if last or len(self.pending) > MOST_PENDING:
            self.over = True
        self._wake.set()

    def tell_first(self, missed: dict[Any, bytes], *, last: bool) -> None:
        """Have sent what was missed, before what has come since; what has come wins where keys are the same."""
        self.pending = missed | self.pending
        self.over |= last
        self._wake.set()

    def end(self, *, at_once: bool = False) -> None:
        """No more is told; `at_once`: not even what was not sent yet."""
        self.cut |= at_once
        self.over = True
        self._wake.set()

    async def next(self) -> bytes:
        """What is to be sent, once there is something; nothing when it is over."""
        while not self.pending and not self.over:
            await self._wake.wait()
            self._wake.clear()
        pending, self.pending = self.pending, {}
        return b"" if self.cut else b"".join(pending.values())


class Hub:
    """All viewers of one process. `reserve` and `release` may be called from any thread, the rest in the loop."""

    def __init__(self):
        self.viewers: set[Viewer] = set()
        self.closing = False  # the server ends
        self._by_job: dict[uuid.UUID, set[Viewer]] = defaultdict(set)
        self._by_owner: dict[int, set[Viewer]] = defaultdict(set)
        self._places: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._feed = feed.Feed()
        self._looking: asyncio.Task | None = None
        self._began: asyncio.Event | None = None
        self._soon: asyncio.Event | None = None
        self._asked_access = self._asked_gone = self._failed = 0.0

    # --- how many a user may have -------------------------------------------------------------------------------

    def reserve(self, user_id: int) -> None:
        """Take one of the user's places in this process. Refused(rate_limited) if all are taken."""
        most = settings.JOBSITE["EVENT_STREAMS_PER_USER"]
        with self._lock:
            if self._places[user_id] >= most:
                raise Refused(ErrorCode.rate_limited, f"At most {most} streams at once are given to one user.")
            self._places[user_id] += 1

    def release(self, user_id: int) -> None:
        """Give a place back."""
        with self._lock:
            self._places[user_id] -= 1
            if not self._places[user_id]:
                del self._places[user_id]

    # --- coming and going ---------------------------------------------------------------------------------------

    async def join(self, viewer: Viewer) -> int:
        """From the return on nothing escapes the viewer. Returns the id of the last event before that."""
        if self.closing:
            viewer.end()
        self.viewers.add(viewer)
        self._shelf(viewer).add(viewer)
        if self._looking is None or self._looking.done():
            self._feed, self._began, self._soon = feed.Feed(), asyncio.Event(), asyncio.Event()
            self._looking = asyncio.create_task(self._look())
            self._end_with_the_server()
        await self._began.wait()
        return self._feed.last_id or 0

    def leave(self, viewer: Viewer) -> None:
        """The viewer is told nothing more."""
        self.viewers.discard(viewer)
        shelf = self._shelf(viewer)
        shelf.discard(viewer)
        if not shelf:
            self._by_job.pop(viewer.job_id, None) if viewer.job_id else self._by_owner.pop(viewer.credential[0], None)
        if not self.viewers and self._soon:
            self._soon.set()

    def _shelf(self, viewer: Viewer) -> set[Viewer]:
        return self._by_job[viewer.job_id] if viewer.job_id else self._by_owner[viewer.credential.user_id]

    def close(self) -> None:
        """The server ends: so does every stream, or it would wait for them."""
        self.closing = True
        for viewer in self.viewers:
            viewer.end()

    def _end_with_the_server(self) -> None:
        """A server that is told to end waits for open answers, and tells no application. So the signal is heard here,
        too."""
        before = signal.getsignal(signal.SIGTERM)
        loop = asyncio.get_running_loop()
        if threading.current_thread() is not threading.main_thread() or not callable(before):
            return

        def end(number, frame):
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.close)
            before(number, frame)

        signal.signal(signal.SIGTERM, end)

    # --- looking ------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        try:
            while self.viewers:
                try:
                    await self._look_once()
                except Error as error:
                    self._tell_once(error)
                self._beat()
                await self._pause()
        finally:
            self._began.set()
            for viewer in self.viewers:
                viewer.end()
            _looking.submit(connection.close)

    async def _look_once(self) -> None:
        now = time.monotonic()
        if now - self._asked_access >= ACCESS_SECONDS:
            await self._ask_access()
            self._asked_access = now
        news = await ask(self._feed.look, self._by_job, self._by_owner, executor=_looking)
        self._began.set()
        for told in news:
            for viewer in self._by_job.get(told.job_id, ()):
                viewer.tell(told.key, told.text, last=told.final)
            for viewer in self._by_owner.get(told.owner_id, ()):
                viewer.tell(told.key, told.text)
        if now - self._asked_gone >= GONE_SECONDS:
            for job_id in await ask(feed.gone, list(self._by_job), executor=_looking):
                for viewer in self._by_job.get(job_id, ()):
                    viewer.tell(job_id, feed.deleted(job_id), last=True)
            self._asked_gone = now

    async def _ask_access(self) -> None:
        ended = await ask(access.ended, {viewer.credential for viewer in self.viewers}, executor=_looking)
        for viewer in self.viewers:
            if viewer.credential in ended:
                viewer.end(at_once=True)

    def _tell_once(self, error: Error) -> None:
        now = time.monotonic()
        if now - self._failed > 60:
            log.warning("Streams stand still, the database does not answer: %s", str(error).strip()[:200])
            self._failed = now

    def _beat(self) -> None:
        now = time.monotonic()
        for viewer in self.viewers:
            if viewer.until <= now:
                viewer.end()
            elif viewer.beat_at <= now:
                viewer.tell("beat", BEAT)

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._soon.wait(), TICK)
        except TimeoutError:
            return
        self._soon.clear()
