"""The operator's first screen: is anything wrong, how it stands, what needs somebody; figures lead to their rows."""

import os
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin.models import LogEntry
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from jobs import artifacts, breakers, cleanup, health, policies, slots, stats, upkeep, verdict
from jobs.models import FINAL, Alert, CleanupRun, Endpoint, Pause, Slot, Tick
from jobs.words import span
from tokens.models import Transaction

from . import charts
from .base import WAITS, ago, by_name, short, size

KEPT = 5.0  # seconds that the figures are shown again
ROWS = 10  # lines of a list
PAGE = os.sysconf("SC_PAGE_SIZE")


class _Figures:
    """Everything that the screen shows, asked for once every KEPT seconds however many look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Ask at the next look; after an action that changes them."""
        self._until, self._known = 0.0, {}

    def __call__(self) -> dict[str, Any]:
        with self._lock:
            if time.monotonic() >= self._until:
                self._known = gather()
                self._until = time.monotonic() + KEPT
            return self._known


figures = _Figures()


def context(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's DASHBOARD_CALLBACK: who may see jobs sees the figures, other staff the plain list of pages."""
    if not request.user.has_perm("jobs.view_job"):
        return context
    return context | {
        "title": "How it stands",
        "shown": figures(),
        "may_operate": request.user.has_perm("jobs.change_job"),
    }


def gather() -> dict[str, Any]:
    """The figures, by a fixed number of statements."""
    began, stands, day = time.perf_counter(), stats.now(), stats.day()
    moment = timezone.now()
    day_ago = moment - stats.DAY
    refunds = refunds_page(day_ago)
    raised = list(Alert.objects.filter(began_at__isnull=False).order_by("began_at"))
    stuck = list(cleanup.find_stuck(policies.patience()).select_related("owner").order_by("started_at")[: ROWS + 1])
    judged = verdict.judge(health.report(), [alert.detail for alert in raised], stuck=len(stuck))
    found = {
        "verdict": judged,
        "fix": reverse(f"admin:{judged.page}") if judged.page else "",
        "numbers": _numbers(stands, day, failed=jobs_page(moment - stats.HOUR, status="FAILED"), refunds=refunds),
        "stands": stands,
        "queues": [(queue, _wait(queue)) for queue in stands.queues],
        "pauses": list(Pause.objects.all()),
        "slots": [_worker(slot) for slot in stands.slots],
        "breakers": [(target, state, span(wait) if wait else "") for target, state, wait in breakers.states()],
        "ticks": _ticks(),
        "disk": size(artifacts.free_bytes()),
        "muted": stats.capped(Endpoint.objects.exclude(muted="").order_by()),
        "stages": stats.stages(stands.running),
        "hours": charts.hours(day.hours),
        "success": "–" if day.success is None else f"{100 * day.success:.1f} %",
        **{name: f"{day.total(name):,}" for name in ("succeeded", "failed", "canceled", "earned")},
        "of_day": {status: jobs_page(day.hours[0].at, status=status) for status in FINAL},
        "refunds": refunds,
        "times": [
            (line.kind, jobs_page(day_ago, kind=line.kind, status="SUCCEEDED"), line.jobs, *map(span, line[2:]))
            for line in stats.times()
        ],
        "stage_times": [
            (line, jobs_page(day_ago, kind=line.kind, status="SUCCEEDED"), span(line.p50), span(line.p95))
            for line in stats.stage_times()
        ],
        "failures": [_group(group) for group in stats.failures()],
        "stuck": stuck,
        "dead": stats.dead_letters(ROWS),
        "alerts": raised,
        "runs": list(by_name(CleanupRun.objects.order_by("-id").defer("jobs", "errors"))[:5]),
        "actions": list(LogEntry.objects.select_related("user", "content_type").order_by("-id")[:ROWS]),
        "list": reverse("admin:jobs_job_changelist"),
        "at": moment,
    }
    return found | {"took": round(1000 * (time.perf_counter() - began)), "kept": KEPT}


def jobs_page(since: datetime | None = None, **chosen: str) -> str:
    """The address of the job list, filtered."""
    if since:
        chosen |= {"finished_at_from_0": f"{since:%Y-%m-%d}", "finished_at_from_1": f"{since:%H:%M:%S}"}
    return f"{reverse('admin:jobs_job_changelist')}?{urlencode(chosen)}"


def refunds_page(since: datetime) -> str:
    """The address of the ledger, filtered."""
    chosen = {"kind__exact": Transaction.Kind.REFUND, "created_at__gte": since.isoformat(timespec="seconds")}
    return f"{reverse('admin:tokens_transaction_changelist')}?{urlencode(chosen)}"


@dataclass(frozen=True)
class Number:
    """One of the six: what it says, where its rows are, and its last hour."""

    name: str
    value: str
    url: str
    line: str
    note: str = ""


def _numbers(stands: stats.Standing, day: stats.Day, *, failed: str, refunds: str) -> list[Number]:
    """The six; `failed` and `refunds` are the addresses of those rows."""

    def line(name: str, attribute: str) -> str:
        return charts.spark([getattr(sample, attribute) for sample in day.minutes], name)

    at_least = "at least " if stands.waiting.more else ""
    return [
        Number("Waiting", str(stands.waiting), jobs_page(status=WAITS), line("Waiting", "queued")),
        Number(
            "Oldest wait",
            f"{at_least}{span(stands.oldest)}" if stands.oldest else "–",
            jobs_page(status=WAITS),
            line("Oldest wait in seconds", "oldest_wait"),
        ),
        Number("Running", f"{len(stands.running):,}", jobs_page(status="RUNNING"), line("Running", "running")),
        Number("Failed, 1 h", str(stands.failed), failed, line("Failed", "failed")),
        Number(
            "Refunded, 24 h",
            f"{stands.refunded:,}{'+' if stands.refunds.more else ''}",
            refunds,
            line("Refunded tokens", "refunded"),
            f"tokens in {stands.refunds} refunds",
        ),
        Number("Free slots", f"{stands.free:,}", reverse("admin:jobs_slot_changelist"), line("Free", "free_slots")),
    ]


def _wait(queue: stats.QueueNow) -> str:
    if not queue.oldest:
        return "–"
    return f"{'at least ' if queue.waiting.more else ''}{span(queue.oldest)}"


@dataclass(frozen=True)
class Worker:
    """A pool child as the screen tells it."""

    slot: Slot
    url: str
    seen: str
    claimed: str
    memory: str
    job_url: str
    job: str


def _worker(slot: Slot) -> Worker:
    return Worker(
        slot,
        reverse("admin:jobs_slot_change", args=[slot.pk]),
        ago(slot.seen_at),
        ago(slot.claimed_at),
        _memory(slot),
        reverse("admin:jobs_job_change", args=[slot.job.pk]) if slot.job else "",
        f"{slot.job.kind} {short(slot.job.pk)}, {round(100 * slot.job.progress)} %" if slot.job else "",
    )


def _memory(slot: Slot) -> str:
    """Resident memory of a process of this host (proc(5), statm's second field is in pages); of another nothing."""
    if any(getattr(slot, name) != value for name, value in slots.here().items()) or slots.gone(slot):
        return "–"
    try:
        return size(int(Path(f"/proc/{slot.pid}/statm").read_text().split()[1]) * PAGE)
    except OSError:  # it ended just now
        return "–"


@dataclass(frozen=True)
class TickNow:
    """A watchman in plain words."""

    name: str
    last: str
    next: str
    late: bool


def _ticks() -> list[TickNow]:
    moment, known = timezone.now(), {tick.name: tick for tick in Tick.objects.all()}
    told = []
    for name, (_, period) in upkeep.schedule().items():
        tick = known.get(name)
        ran_at = tick.ran_at if tick else None
        due = (ran_at + timedelta(seconds=period) - moment).total_seconds() if ran_at else None
        words = "at its first period" if due is None else f"in {span(due)}" if due > 0 else f"{span(-due)} late"
        told.append(TickNow(name, ago(ran_at) if ran_at else "never", words, due is not None and due < -period - 1))
    return told


@dataclass(frozen=True)
class Group:
    """Failures of one code and kind: how many in each window, where they are, and where they are retried."""

    of: stats.Failures
    urls: dict[str, str]
    bulk: str


def _group(of: stats.Failures) -> Group:
    moment = timezone.now()
    chosen = {"status": "FAILED", "kind": of.kind, "error_code": of.code}
    windows = {"hour": stats.HOUR, "day": stats.DAY, "week": stats.WEEK}
    urls = {name: jobs_page(moment - window, **chosen) for name, window in windows.items()}
    return Group(of, urls, f"{reverse('admin:jobs_job_bulk')}?verb=retry&{urls['week'].partition('?')[2]}")
