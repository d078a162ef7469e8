"""Totals that only grow, for the metrics: each event is counted once, by a watermark, into the rows of `Tally`.

Workers keep no counters: there are several of them, they are recycled, and what they counted would go with them. The
events say all, but are too many to be counted at each scrape.
"""

import time
from collections import Counter
from datetime import timedelta
from uuid import UUID

from django.db import connection
from django.db.models import F, OuterRef, QuerySet, Subquery
from django.db.models.functions import Now

from .errors import ErrorCode
from .models import FINAL, JobEvent, Status, Tally
from .transactions import write

MARK = "watermark"  # the series whose value is the id of the last event that was counted
BATCH = 2000  # events of one transaction: about 50 ms of SQLite's write lock
PATIENCE = 5.0  # seconds that one `fold` goes on: after a long stop the next ones do the rest
MARGIN = timedelta(seconds=15)  # PostgreSQL: a transaction that began earlier may still commit an event of a lower id
INFINITE = "+Inf"
BUCKETS = {  # upper bounds in seconds
    "claim": (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0),
    "run": (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0),
}
SILENT = {ErrorCode.worker_timeout.name, ErrorCode.worker_lost.name}


def fold() -> int:
    """Count the events that are new since the last time. Returns how many."""
    until = time.monotonic() + PATIENCE
    counted = 0
    while (now := _fold_batch()) and time.monotonic() < until:
        counted += now
    return counted + now


def keep(job_id: UUID) -> None:
    """Count a job's events now, in the caller's transaction, which is about to delete them."""
    events = JobEvent.objects.filter(job_id=job_id)
    if events.filter(pk__gt=_mark().value).exists():
        mark = _mark(lock=True)
        _add(_counted(_read(events.filter(pk__gt=mark.value))))


def totals() -> dict[str, dict[tuple[str, ...], float]]:
    """Series → values of its labels → total, all of one moment."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for series, labels, value in Tally.objects.exclude(series=MARK).values_list("series", "labels", "value"):
        found.setdefault(series, {})[tuple(labels.split(","))] = value
    return found


@write
def _fold_batch() -> int:
    """Count at most BATCH events and move the watermark with them. Two at once: one waits for the other's mark."""
    mark = _mark(lock=True)
    events = _read(JobEvent.objects.filter(pk__gt=mark.value))[:BATCH]
    if connection.vendor == "postgresql":  # SQLite has one writer: what it shows is in order
        events = _settled(events)
    events = list(events)
    if events:
        _add(_counted(events))
        Tally.objects.filter(pk=mark.pk).update(value=events[-1]["pk"])
    return len(events)


def _mark(*, lock: bool = False) -> Tally:
    rows = Tally.objects.select_for_update() if lock else Tally.objects
    return rows.get_or_create(series=MARK, labels="")[0]


def _settled(events: QuerySet) -> list[dict]:
    """The first of `events`, up to one that is younger than MARGIN."""
    old = []
    for event in events.annotate(young=Now() - MARGIN):
        if event["at"] > event.pop("young"):
            break
        old.append(event)
    return old


def _read(events: QuerySet[JobEvent]) -> QuerySet:
    """Events in order, each with its job's labels and the event of that job before it."""
    before = JobEvent.objects.filter(job_id=OuterRef("job_id"), pk__lt=OuterRef("pk")).order_by("-pk")
    return events.order_by("pk").values(
        "pk",
        "at",
        "status",
        "code",
        "tokens",
        kind=F("job__kind"),
        queue=F("job__queue"),
        before=Subquery(before.values("status")[:1]),
        before_at=Subquery(before.values("at")[:1]),
    )


def _counted(events) -> Counter:
    """(series, labels) → by how much it grows."""
    more: Counter[tuple[str, str]] = Counter()
    for event in events:
        of = f"{event['kind']},{event['queue']}"
        status, was, tokens = event["status"], event["before"], event["tokens"]
        more["transitions", f"{of},{status},{event['code']}"] += 1
        if tokens < 0:
            more["charged", of] -= tokens
        elif tokens > 0:
            more["refunded", of] += tokens
            more["refunds", of] += 1
        if event["code"] in SILENT:
            more["heartbeats_missed", of] += 1
        if event["before_at"] is None:
            continue
        seconds = max(0.0, (event["at"] - event["before_at"]).total_seconds())
        if status == Status.RUNNING and was == Status.QUEUED:  # a RETRY waits on purpose
            _observe(more, "claim", of, seconds)
        elif was == Status.RUNNING and status in (*FINAL, Status.RETRY):
            _observe(more, "run", f"{of},{status}", seconds)
    return more


def _observe(more: Counter, series: str, of: str, seconds: float) -> None:
    bucket = next((bound for bound in BUCKETS[series] if seconds <= bound), INFINITE)
    more[series, f"{of},{bucket}"] += 1
    more[f"{series}_sum", of] += seconds


def _add(more: Counter) -> None:
    """Raise the totals, in as many statements for a thousand series as for one; the caller holds the watermark."""
    touched = Tally.objects.filter(series__in={series for series, _ in more})
    known = {(series, labels): value for series, labels, value in touched.values_list("series", "labels", "value")}
    rows = [Tally(series=key[0], labels=key[1], value=known.get(key, 0.0) + by) for key, by in more.items()]
    Tally.objects.bulk_create(rows, update_conflicts=True, unique_fields=["series", "labels"], update_fields=["value"])
