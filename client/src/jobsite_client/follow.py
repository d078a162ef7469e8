"""Follow a job until it ends: by live events where the platform sends them, else by asking again; the one is as good
as the other, and takes over where the other fails."""

from __future__ import annotations

import json
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from httpx_sse import SSEError

from .errors import ApiError, ConnectionFailed, JobsiteError, JobUnfinished, ServerError, TooManyRequests
from .models import Job
from .wire import Wire, json_of, seconds_of

SILENCE = 45.0  # seconds without a heartbeat after which a stream is dead; they come every 15
PLACE = 30.0  # seconds: how old a waiting job's place in the queue may get; events do not tell of it
SHORT = 20.0  # seconds: what is left of a time-out when asking takes over, since heartbeats are too rare to end it
PATIENCE = 300.0  # seconds that a platform may be away while a job is followed


class Follow:
    """One job, followed. `changes`: a Job whenever something about it has changed, the last one final.

    JobUnfinished after `timeout` seconds; any error has the job's id.
    """

    def __init__(self, wire: Wire, job_id: str, timeout: float | None):
        self.wire, self.path = wire, f"/api/jobs/{job_id}/"
        self.job_id = job_id
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.job: Job | None = None
        self.etag = self.last_event = ""
        self.live = True  # worth asking for events
        self.pause = 1.0

    async def changes(self) -> AsyncGenerator[Job, None]:
        shown = None
        try:
            async with aclosing(self._looks()) as looks:
                async for job in looks:
                    if job != shown:
                        shown = job
                        yield job
                    if job.is_final:
                        return
        except JobsiteError as error:
            error.job_id = self.job_id
            raise

    async def _looks(self) -> AsyncGenerator[Job, None]:
        away_since = None
        while True:
            try:
                yield await self._asked()
                away_since = None
                if self.live and self._left() > SHORT:
                    async with aclosing(self._events()) as events:
                        async for job in events:
                            yield job
            except (ConnectionFailed, ServerError, TooManyRequests):
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > PATIENCE:
                    raise
                self.pause = 5.0
            if self.job and self._left() <= 0:
                raise JobUnfinished(self.job)
            await self.wire.net.sleep(max(0.0, min(self.pause, self._left())))

    def _left(self) -> float:
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()

    async def _asked(self) -> Job:
        headers = {"If-None-Match": self.etag} if self.etag else {}
        answer = await self.wire.ask("GET", self.path, headers=headers)
        self.pause = seconds_of(answer.headers.get("retry-after")) or min(5.0, self.pause * 1.3)
        if answer.status_code == 304 and self.job:
            return self.job
        self.etag = answer.headers.get("etag", "")
        self.job = Job.of(json_of(answer))
        return self.job

    async def _events(self) -> AsyncGenerator[Job, None]:
        """The job with each event; returns when the stream ends or breaks, or the time is nearly up."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self.last_event} if self.last_event else {})
        try:
            async with self.wire.stream(f"{self.path}events/", headers=headers, read_timeout=SILENCE) as answer:
                if answer.status_code != 200:
                    return
                begun = time.monotonic()
                events = self.wire.net.events(answer, lambda: self._worth_going_on(begun))
                async with aclosing(events):
                    async for event in events:
                        self.last_event = event.id or self.last_event
                        if event.event == "job.deleted":
                            return  # asking says so
                        told = json.loads(event.data)
                        self.job, self.etag = self._with_place(Job.of(told)), ""
                        yield self.job
        except ConnectionFailed:
            pass  # asking tells whether all is down
        except (SSEError, ValueError, KeyError, TypeError, AttributeError):
            self.live = False  # not a stream that this version reads
        except ApiError as refused:
            self.live = refused.status in (429, 503)  # too many streams; else an older platform, or one without
        self.pause = random.uniform(0.5, 1.5)  # not all at once, if the platform was restarted

    def _worth_going_on(self, begun: float) -> bool:
        waits = self.job is not None and self.job.queue_position is not None
        return self._left() > SHORT and not (waits and time.monotonic() - begun > PLACE)

    def _with_place(self, job: Job) -> Job:
        same = self.job is not None and (job.status, job.attempt) == (self.job.status, self.job.attempt)
        return replace(job, queue_position=self.job.queue_position) if same and self.job else job
