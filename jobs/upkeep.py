"""The watchmen's schedule: which task runs how often, and the clock that lets each period's work happen once."""

from datetime import timedelta

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now

from .models import Tick


def schedule() -> dict[str, tuple[str, float]]:
    """Name → (Celery task, period in seconds). Written into Beat's tables by migration and by `manage.py up`."""
    own = settings.JOBSITE
    return {
        "dispatch_due": ("jobs.dispatch_due", own["DISPATCH_SECONDS"]),
        "monitor_heartbeats": ("jobs.monitor_heartbeats", min(own["MONITOR_SECONDS"], own["HEARTBEAT_TIMEOUT"] / 6)),
        "cleanup_stuck_jobs": ("jobs.cleanup_stuck_jobs", own["CLEANUP_SECONDS"]),
        "check_alerts": ("jobs.check_alerts", 60.0),
        "sweep_remote": ("jobs.sweep_remote", own["RUNPOD_SWEEP_SECONDS"]),
        "sweep_storage": ("jobs.sweep_storage", 86_400.0),
        "apply_retention": ("jobs.apply_retention", 3600.0),
        "reconcile_tokens": ("jobs.reconcile_tokens", 86_400.0),
    }


def install(periodic=None, interval=None, tick=None) -> None:
    """Write the schedule: a Beat entry and a tick for each name. Repeating it changes nothing but changed periods.

    A migration passes its own models; Beat keeps an operator's `enabled`.
    """
    if periodic is None:
        from django_celery_beat.models import IntervalSchedule as interval
        from django_celery_beat.models import PeriodicTask as periodic
    tick = tick or Tick
    for name, (task, period) in schedule().items():
        whole = period == int(period)
        every, _ = interval.objects.get_or_create(
            every=int(period) if whole else int(period * 1_000_000), period="seconds" if whole else "microseconds"
        )
        periodic.objects.update_or_create(
            name=name, defaults={"task": task, "interval": every, "queue": "upkeep", "expire_seconds": None}
        )
        tick.objects.update_or_create(name=name, defaults={"period": period})


def take(name: str) -> bool:
    """Take this period's turn of a watchman: True for exactly one caller a period, by compare-and-set on its tick."""
    period = schedule()[name][1]
    due = Q(ran_at=None) | Q(ran_at__lt=Now() - timedelta(seconds=0.8 * period))
    return bool(Tick.objects.filter(due, name=name).update(ran_at=Now(), period=period))
