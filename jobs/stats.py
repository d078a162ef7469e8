"""The figures of the operator's first screen. None counts a whole table: each reads an index, as far as its cap.

`take_sample` keeps one line a minute of what cannot be read later; the rest is asked when the screen is opened, by a
number of statements that does not depend on the rows.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Count, Min, QuerySet, Sum
from django.utils import timezone

from tokens.models import Transaction

from . import dispatch, slots, sql_views
from .models import Job, JobEvent, Sample, Slot, Status

CAP = 10_000  # rows that one figure looks at
TIMED = 2_000  # the newest ended jobs that run times are taken from
STAGED = 1_000  # the newest attempts that times of stages are taken from
SETTLED = timedelta(seconds=10)  # a sample leaves these to the next: what ended in them may not be committed yet
KEPT = timedelta(days=8)  # of samples
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)


class Capped(NamedTuple):
    """A count that stops at a cap: shown as `10,000+` then."""

    count: int
    more: bool = False

    def __str__(self) -> str:
        return f"{self.count:,}{'+' if self.more else ''}"


def capped(rows: QuerySet, most: int | None = None) -> Capped:
    """How many rows there are, counted to `most` (CAP); one statement."""
    most = most or CAP
    return _capped(rows[: most + 1].count(), most)


def _capped(count: int, most: int) -> Capped:
    return Capped(min(count, most), count > most)


# --- now -----------------------------------------------------------------------------------------------------------


@dataclass
class QueueNow:
    """One queue: `oldest` is how long the longest of the counted jobs that could start has waited, in seconds."""

    name: str
    waiting: Capped
    oldest: float
    running: int = 0
    slots: int = 0
    free: int = 0


@dataclass
class Standing:
    """How things stand: queues, running jobs and the processes that run them."""

    queues: list[QueueNow]
    running: list[Job]
    slots: list[Slot]
    failed: Capped  # within the hour
    refunded: int  # tokens, within the day
    refunds: Capped

    @property
    def waiting(self) -> Capped:
        return Capped(sum(q.waiting.count for q in self.queues), any(q.waiting.more for q in self.queues))

    @property
    def oldest(self) -> float:
        return max((queue.oldest for queue in self.queues), default=0.0)

    @property
    def free(self) -> int:
        busy = {job.slot_id for job in self.running}
        return sum(slot.beats and bool(slot.queues) and slot.pk not in busy for slot in self.slots)


def now() -> Standing:
    """The six figures and what is behind them."""
    moment = timezone.now()
    running = list(
        Job.objects.filter(status=Status.RUNNING)
        .select_related("owner")
        .defer("params", "metadata")
        .order_by("-id")[:CAP]
    )
    processes = list(Slot.objects.order_by("-seen_at")[:200])
    for slot in processes:
        slot.beats = (moment - slot.seen_at).total_seconds() <= slots.seen_within()
        slot.job = next((job for job in running if job.slot_id == slot.pk), None)
    queues = []
    for name in dispatch.work_queues():
        waiting = Job.objects.filter(queue=name, run_after__isnull=False).order_by().values("run_after")[: CAP + 1]
        seen = waiting.aggregate(count=Count("*"), oldest=Min("run_after"))
        wait = (moment - seen["oldest"]).total_seconds() if seen["oldest"] else 0.0
        serving = [slot for slot in processes if slot.beats and name in slot.queues]
        queues.append(
            QueueNow(
                name,
                _capped(seen["count"], CAP),
                max(0.0, wait),
                sum(job.queue == name for job in running),
                len(serving),
                sum(slot.job is None for slot in serving),
            )
        )
    refunds = Transaction.objects.filter(reverses__isnull=False, created_at__gte=moment - DAY)
    given = refunds.order_by().values("amount")[: CAP + 1].aggregate(count=Count("*"), total=Sum("amount"))
    failed = capped(ended(Status.FAILED, since=moment - HOUR))
    return Standing(queues, running, processes, failed, given["total"] or 0, _capped(given["count"], CAP))


def ended(status: Status, *, since: datetime, until: datetime | None = None) -> QuerySet[Job]:
    """Jobs that ended so, newest first; `job_ended` is the index."""
    jobs = Job.objects.filter(status=status, finished_at__gte=since).order_by("-finished_at")
    return jobs if until is None else jobs.filter(finished_at__lt=until)


# --- minute by minute ----------------------------------------------------------------------------------------------


def take_sample() -> Sample:
    """Write how things stand and what ended since the last sample, and forget the oldest samples."""
    stands, until = now(), timezone.now() - SETTLED
    last = Sample.objects.order_by("-at").values_list("at", flat=True).first()
    since = max(last or until - timedelta(minutes=1), until - DAY)
    counts = {
        status: ended(status, since=since, until=until).order_by().aggregate(count=Count("*"), total=Sum("price"))
        for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)
    }
    back = Transaction.objects.filter(reverses__isnull=False, created_at__gte=since, created_at__lt=until)
    Sample.objects.filter(at__lt=until - KEPT).delete()
    return Sample.objects.create(
        at=until,
        queued=stands.waiting.count,
        oldest_wait=stands.oldest,
        running=len(stands.running),
        free_slots=stands.free,
        succeeded=counts[Status.SUCCEEDED]["count"],
        failed=counts[Status.FAILED]["count"],
        canceled=counts[Status.CANCELED]["count"],
        earned=counts[Status.SUCCEEDED]["total"] or 0,
        refunded=back.aggregate(total=Sum("amount"))["total"] or 0,
    )


@dataclass
class HourOf:
    """What ended within one hour of the clock."""

    at: datetime
    succeeded: int = 0
    failed: int = 0
    canceled: int = 0
    earned: int = 0
    refunded: int = 0

    @property
    def ended(self) -> int:
        return self.succeeded + self.failed + self.canceled


@dataclass
class Day:
    """The last 24 hours by the samples, and the last hour's samples themselves, oldest first."""

    hours: list[HourOf]
    minutes: list[Sample] = field(default_factory=list)

    def total(self, name: str) -> int:
        return sum(getattr(hour, name) for hour in self.hours)

    @property
    def success(self) -> float | None:
        """The share of SUCCEEDED among those that succeeded or failed, 0.0 to 1.0; None if none did."""
        tried = self.total("succeeded") + self.total("failed")
        return self.total("succeeded") / tried if tried else None


def day() -> Day:
    """24 whole hours and the one that has begun; one statement."""
    moment = timezone.now()
    first = moment.replace(minute=0, second=0, microsecond=0) - DAY
    hours = {first + number * HOUR: HourOf(first + number * HOUR) for number in range(25)}
    samples = list(Sample.objects.filter(at__gte=first).order_by("at"))
    for sample in samples:
        hour = hours[min(sample.at, moment).replace(minute=0, second=0, microsecond=0)]
        for name in ("succeeded", "failed", "canceled", "earned", "refunded"):
            setattr(hour, name, getattr(hour, name) + getattr(sample, name))
    return Day(list(hours.values()), [sample for sample in samples if sample.at >= moment - HOUR])


# --- what ended, in groups -----------------------------------------------------------------------------------------

TIMES = """
WITH ended AS (
    SELECT kind, {epoch:finished_at} - {epoch:started_at} AS ran, {epoch:started_at} - {epoch:created_at} AS waited
    FROM jobs_job WHERE status = 'SUCCEEDED' AND finished_at >= %s AND started_at IS NOT NULL
    ORDER BY finished_at DESC LIMIT %s),
ranked AS (
    SELECT kind, ran, waited, COUNT(*) OVER (PARTITION BY kind) AS n,
           ROW_NUMBER() OVER (PARTITION BY kind ORDER BY ran) AS ran_place,
           ROW_NUMBER() OVER (PARTITION BY kind ORDER BY waited) AS waited_place FROM ended)
SELECT kind, MAX(n), MIN(CASE WHEN waited_place >= 0.5 * n THEN waited END),
       MIN(CASE WHEN waited_place >= 0.95 * n THEN waited END), MIN(CASE WHEN ran_place >= 0.5 * n THEN ran END),
       MIN(CASE WHEN ran_place >= 0.95 * n THEN ran END)
FROM ranked GROUP BY kind ORDER BY kind"""

FAILURES = """
SELECT error_code, kind, COUNT(*), SUM(CASE WHEN finished_at >= %s THEN 1 ELSE 0 END),
       SUM(CASE WHEN finished_at >= %s THEN 1 ELSE 0 END), SUM(price)
FROM (SELECT error_code, kind, finished_at, price FROM jobs_job WHERE status = 'FAILED' AND finished_at >= %s
      ORDER BY finished_at DESC LIMIT %s) AS failed
GROUP BY error_code, kind ORDER BY 3 DESC, 1, 2 LIMIT 20"""


class KindTimes(NamedTuple):
    """Seconds, over the newest succeeded jobs of the last day: the wait before the last attempt, and its run."""

    kind: str
    jobs: int
    wait_p50: float
    wait_p95: float
    run_p50: float
    run_p95: float


class Failures(NamedTuple):
    """FAILED jobs of one code and kind within the week, the day and the hour; what retrying all would charge."""

    code: str
    kind: str
    week: int
    hour: int
    day: int
    price: int


def times() -> list[KindTimes]:
    """How long jobs waited and ran, by kind."""
    words = sql_views.WORDS[connection.vendor]
    statement = TIMES.format(epoch=sql_views.Epoch(words["epoch"]))
    return [KindTimes(*row) for row in _rows(statement, [_param(timezone.now() - DAY), TIMED])]


class StageTimes(NamedTuple):
    """Seconds that one stage of a kind's work took, over the newest attempts of the last day that succeeded."""

    kind: str
    stage: str
    attempts: int
    p50: float
    p95: float


def stage_times() -> list[StageTimes]:
    """How long each stage took, by kind; its stages in the order of its newest attempt. Kinds that name none are not
    in it."""
    staged = JobEvent.objects.filter(status=Status.SUCCEEDED, stages__isnull=False, at__gte=timezone.now() - DAY)
    took: dict[str, dict[str, list[float]]] = {}
    for kind, stages in staged.order_by("-at").values_list("job__kind", "stages")[:STAGED]:
        for name, seconds in stages:
            took.setdefault(kind, {}).setdefault(name, []).append(seconds)
    return [
        StageTimes(kind, name, len(all_of_it), _at(all_of_it, 0.5), _at(all_of_it, 0.95))
        for kind, stages in sorted(took.items())
        for name, all_of_it in stages.items()
    ]


def _at(values: list[float], share: float) -> float:
    """The least value that `share` of all are not above, as TIMES takes it."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def failures() -> list[Failures]:
    """The newest failures (at most CAP) by code and kind, most first."""
    moment = timezone.now()
    windows = [_param(moment - window) for window in (HOUR, DAY, WEEK)]
    return [Failures(*row) for row in _rows(FAILURES, [*windows, CAP])]


def dead_letters(most: int) -> list[Job]:
    """The newest FAILED jobs."""
    jobs = Job.objects.filter(status=Status.FAILED, finished_at__isnull=False).order_by("-finished_at")
    return list(jobs.select_related("owner").defer("params", "metadata")[:most])


class StageNow(NamedTuple):
    """Running jobs of one kind at one stage, and how long ago their attempts began, in seconds on average."""

    kind: str
    stage: str
    jobs: int
    age: float


def stages(running: Iterable[Job]) -> list[StageNow]:
    """How the running jobs are spread over the stages of their work."""
    moment, groups = timezone.now(), {}
    for job in running:
        groups.setdefault((job.kind, job.stage), []).append((moment - job.started_at).total_seconds())
    return [StageNow(*key, len(ages), sum(ages) / len(ages)) for key, ages in sorted(groups.items())]


def _param(moment: datetime) -> Any:
    """A moment as the database's driver takes it in a statement of our own."""
    return connection.ops.adapt_datetimefield_value(moment)


def _rows(statement: str, params: list) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall()
