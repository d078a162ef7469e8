"""What happened to jobs since the last look, as texts to send: a few statements, however many are watching."""

import json
import time
import uuid
from collections.abc import Callable, Collection, Container, Iterable
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Max
from rest_framework.utils.encoders import JSONEncoder

from .. import queries
from ..models import FINAL, Job, JobEvent, Status
from . import objects

LATE = 10.0  # seconds in which an event may become visible after one with a higher id (PostgreSQL)
LOOK_BACK = 500  # events before the last one that may still be missing when the looking begins
BATCH = 2000  # events a statement
REPLAYED = 1000  # events to whoever comes back; then the stream ends, and the next one goes on from there
REACH = 100_000  # events of the platform that a stream over many jobs is caught up on
PROGRESS = ("id", "owner_id", "attempt", "progress", "stage")
Row = tuple[int, uuid.UUID, str, int]  # id, job, status, owner


class Told(NamedTuple):
    """Something to send: a later one with the same key takes an earlier one's place."""

    key: Any  # an event's id, else the job's
    job_id: uuid.UUID
    owner_id: int
    text: bytes
    final: bool = False  # the job has ended with it


class Feed:
    """Remembers what was seen. Used by one thread at a time.

    Ids are given before commit, so on PostgreSQL an event may appear below one that was seen already. Each id that is
    skipped is asked for again for ten seconds: what DESIGN calls reading the last ten seconds again, without the rest.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.last_id: int | None = None
        self._missing: dict[int, float] = {}  # id → until when it is looked for
        self._untold: list[Row] = []  # what was read; kept until all of a look has succeeded
        self._running: dict[uuid.UUID, tuple] = {}  # watched jobs → what was last told of their progress
        self._clock = clock

    def begin(self) -> None:
        """Start from now."""
        self.last_id = JobEvent.objects.aggregate(last=Max("id"))["last"] or 0
        before = max(0, self.last_id - LOOK_BACK)
        seen = JobEvent.objects.filter(id__gt=before, id__lte=self.last_id).values_list("id", flat=True)
        self._miss(before, self.last_id, set(seen))

    def look(self, jobs: Container[uuid.UUID], owners: Container[int]) -> list[Told]:
        """What is new of these jobs, and of all jobs of these owners. After an error the next look tells it.

        Who is watching is asked after the reading, so a viewer that comes meanwhile misses nothing.
        """
        if self.last_id is None:
            self.begin()
        self._read_events()
        rows = Job.objects.filter(status=Status.RUNNING).order_by().values_list(*PROGRESS)
        running = {row[0]: row[1:] for row in rows if row[0] in jobs or row[1] in owners}
        events = [row for row in self._untold if row[1] in jobs or row[3] in owners]
        told = {row[1] for row in events}
        moved = [(job, row[0]) for job, row in running.items() if self._running.get(job) != row and job not in told]
        news = _as_told(events, moved)
        self._running, self._untold = running, []
        return news

    def _read_events(self) -> None:
        now = self._clock()
        self._missing = {number: until for number, until in self._missing.items() if until > now}
        if self._missing:
            late = _rows(id__in=list(self._missing))
            self._untold += late
            for row in late:
                del self._missing[row[0]]
        while batch := _rows(id__gt=self.last_id):
            self._untold += batch
            self._miss(self.last_id, batch[-1][0], {row[0] for row in batch})
            self.last_id = batch[-1][0]
            if len(batch) < BATCH:
                break

    def _miss(self, before: int, last: int, seen: set[int]) -> None:
        skipped = set(range(max(before + 1, last - BATCH - LOOK_BACK), last)) - seen
        self._missing |= dict.fromkeys(skipped, self._clock() + LATE)


def _rows(**chosen: Any) -> list[Row]:
    events = JobEvent.objects.filter(**chosen).order_by("id")
    return list(events.values_list("id", "job_id", "status", "job__owner_id")[:BATCH])


def replay_job(job_id: uuid.UUID, after: int) -> tuple[dict[Any, bytes], bool]:
    """(one job's events after that id, oldest first, else its state now; whether nothing comes after them)."""
    rows = _rows(job_id=job_id, id__gt=after)
    owner = Job.objects.filter(pk=job_id).values_list("owner_id", flat=True).first()
    if owner is None:
        return {job_id: deleted(job_id)}, True
    told = _as_told(rows, [] if rows else [(job_id, owner)])
    return {one.key: one.text for one in told}, bool(told) and told[-1].final


def replay_owner(owner_id: int, after: int) -> tuple[dict[Any, bytes], bool]:
    """(events of an owner's jobs after that id, oldest first; whether those are only the first of them).

    On PostgreSQL also those of the ten seconds before, which may have become visible since: better twice than never.
    """
    last = JobEvent.objects.aggregate(last=Max("id"))["last"] or 0
    after = max(after, last - REACH)
    first = after
    if connection.vendor == "postgresql" and (at := JobEvent.objects.filter(pk=after).values_list("at").first()):
        late = JobEvent.objects.filter(id__gt=after - LOOK_BACK, id__lt=after, at__gt=at[0] - timedelta(seconds=LATE))
        first = (late.order_by("id").values_list("id", flat=True).first() or after + 1) - 1
    events = JobEvent.objects.filter(job__owner_id=owner_id, id__gt=first).exclude(id=after).order_by("id")
    rows = list(events.values_list("id", "job_id", "status", "job__owner_id")[:REPLAYED])
    return {one.key: one.text for one in _as_told(rows, [])}, len(rows) == REPLAYED


def _as_told(events: list[Row], moved: Iterable[tuple[uuid.UUID, int]]) -> list[Told]:
    """Each with the job as it is now; what was deleted meanwhile is left out."""
    texts = _texts({row[1] for row in events} | {job for job, _ in moved})
    told = []
    for number, job_id, status, owner_id in events:
        if job_id in texts:
            text, now = texts[job_id]
            message = sse(f"job.{status.lower()}", text, number=number)
            told.append(Told(number, job_id, owner_id, message, status in FINAL and now in FINAL))
    told += [Told(job, job, owner, sse("progress", texts[job][0])) for job, owner in moved if job in texts]
    return told


def _texts(ids: Collection[uuid.UUID]) -> dict[uuid.UUID, tuple[str, str]]:
    """Job → (its object as JSON, its status)."""
    if not ids:
        return {}
    jobs = list(queries.with_outputs(Job.objects.filter(pk__in=ids)))
    made = objects.many(None, jobs)
    return {job.pk: (json.dumps(one, cls=JSONEncoder), job.status) for job, one in zip(jobs, made, strict=True)}


def gone(ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Those of these jobs that were deleted."""
    asked, found = list(ids), set()
    for first in range(0, len(asked), 1000):
        found |= set(Job.objects.filter(pk__in=asked[first : first + 1000]).values_list("pk", flat=True))
    return set(asked) - found


def sse(name: str, data: str, *, number: int | None = None) -> bytes:
    """One message of an event stream; `data` is one line."""
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {data}\n\n".encode()


def deleted(job_id: uuid.UUID) -> bytes:
    """What the watchers of a job that was deleted are told last."""
    return sse("job.deleted", json.dumps({"id": str(job_id)}))
