"""The watchmen's schedule: which task runs how often, and the clock that lets each period's work happen once."""

import time
from collections.abc import Callable, Iterable
from datetime import timedelta

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from .models import Tick

UNITS = [("days", 86_400), ("hours", 3600), ("minutes", 60), ("seconds", 1)]  # of Beat, in seconds
FINEST = ("microseconds", 1e-6)


def schedule() -> dict[str, tuple[str, float]]:
    """Name → (Celery task, period in seconds). Written into Beat's tables by migration and by `manage.py up`."""
    own = settings.JOBSITE
    return {
        "dispatch_due": ("jobs.dispatch_due", own["DISPATCH_SECONDS"]),
        "monitor_heartbeats": ("jobs.monitor_heartbeats", min(own["MONITOR_SECONDS"], own["HEARTBEAT_TIMEOUT"] / 6)),
        "cleanup_stuck_jobs": ("jobs.cleanup_stuck_jobs", own["CLEANUP_SECONDS"]),
        "count_events": ("jobs.count_events", 15.0),
        "check_alerts": ("jobs.check_alerts", 60.0),
        "deliver_webhooks": ("jobs.deliver_webhooks", 10.0),
        "take_sample": ("jobs.take_sample", 60.0),
        "sweep_remote": ("jobs.sweep_remote", own["RUNPOD_SWEEP_SECONDS"]),
        "send_mail": ("jobs.send_mail", 15.0),
        "sweep_storage": ("jobs.sweep_storage", 86_400.0),
        "apply_retention": ("jobs.apply_retention", 3600.0),
        "reconcile_tokens": ("jobs.reconcile_tokens", 86_400.0),
    }


def install(periodic=None, interval=None, tick=None) -> None:
    """Write the schedule: a Beat entry and a tick for each name. Repeating it changes nothing but changed periods.

    A migration passes its own models; Beat keeps an operator's `enabled`. Another schedule that he gave one of ours (a
    crontab, say) goes: Beat's rows refuse to be saved with two. He may also have made an interval a second time.
    """
    if periodic is None:
        from django_celery_beat.models import IntervalSchedule as interval
        from django_celery_beat.models import PeriodicTask as periodic
    tick = tick or Tick
    for name, (task, period) in schedule().items():
        unit, length = next(((unit, length) for unit, length in UNITS if not period % length), FINEST)
        wanted = {"every": round(period / length), "period": unit}
        every = interval.objects.filter(**wanted).first() or interval.objects.create(**wanted)
        ours = {"task": task, "interval": every, "queue": "upkeep", "expire_seconds": None, "one_off": False}
        periodic.objects.update_or_create(name=name, defaults=ours | dict.fromkeys(("crontab", "solar", "clocked")))
        # Beat counts from its own start what it never sent: restarted within each period it would never send it.
        periodic.objects.filter(name=name, last_run_at=None).update(last_run_at=timezone.now())
        tick.objects.update_or_create(name=name, defaults={"period": period})


def take(name: str) -> bool:
    """Take this period's turn of a watchman: True for exactly one caller a period, by compare-and-set on its tick.

    One that seems to have run later than now by more than a period is due: the clock was set back since.
    """
    period = schedule()[name][1]
    due = Q(ran_at=None) | Q(ran_at__lt=Now() - timedelta(seconds=0.8 * period)) | Q(asked=True)
    set_back = Q(ran_at__gt=Now() + timedelta(seconds=period))
    return bool(Tick.objects.filter(due | set_back, name=name).update(ran_at=Now(), period=period, asked=False))


def turn(name: str, work: Callable[[], int]) -> int:
    """Do a watchman's work if it is its turn; its tick says how long that took and what it returned. Returns that, 0
    if it is not."""
    if not take(name):
        return 0
    began, found = time.monotonic(), None
    try:
        found = work()
        return found
    finally:
        Tick.objects.filter(name=name).update(seconds=time.monotonic() - began, found=found)


def ask(names: Iterable[str]) -> None:
    """Let these watchmen have a turn before their period is over."""
    Tick.objects.filter(name__in=names).update(asked=True)
