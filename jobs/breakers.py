"""The circuit breakers' state, in the database: shared by all workers, kept when the broker is lost."""

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import ParamSpec

from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.db.models.functions import Now

from .engines.breaker import Breaker as Switch
from .models import Breaker
from .transactions import GONE, again_if_busy, let_go, write

P = ParamSpec("P")
log = logging.getLogger(__name__)

PROBE_SECONDS = 120.0  # a probe that has said nothing for so long is given up: its worker may be dead
LOOK_AGAIN = 5.0  # seconds to wait while another one probes


def breaker(target: str) -> Switch:
    """The breaker of an outside service (`llm`, `runpod`, `storage`)."""
    return Switch(target, _Rows())


def states() -> list[tuple[str, str, float]]:
    """(target, closed | open | half-open, seconds until it may be probed) of every service that ever failed."""
    found = []
    for row in Breaker.objects.annotate(now=Now()).order_by("target"):
        wait = _cools_for(row, row.now)
        found.append((row.target, "closed" if row.opened_at is None else "open" if wait else "half-open", wait))
    return found


def _if_the_database_answers(function: Callable[P, None]) -> Callable[P, None]:
    """Decorator for what is noted of a call that is over: its answer (of a request that is paid for) counts more."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except GONE as error:
            if connection.in_atomic_block:
                raise
            let_go(error)

    return wrapper


class _Rows:
    """The store over rows of `Breaker`; every time is the database's."""

    @again_if_busy
    def admit(self, target: str) -> tuple[float, bool]:
        row = Breaker.objects.annotate(now=Now()).filter(target=target).first()
        if row is None or row.opened_at is None:
            return 0.0, False
        if wait := _cools_for(row, row.now):
            return wait, False
        free = Q(probed_at=None) | Q(probed_at__lt=Now() - timedelta(seconds=PROBE_SECONDS))
        mine = Breaker.objects.filter(free, target=target, opened_at=row.opened_at).update(probed_at=Now())
        return (0.0, True) if mine else (LOOK_AGAIN, False)

    @_if_the_database_answers
    @write
    def failed(self, target: str, *, probing: bool) -> None:
        own = settings.JOBSITE
        Breaker.objects.get_or_create(target=target)
        row = Breaker.objects.select_for_update().annotate(now=Now()).get(target=target)
        now = row.now.timestamp()
        window, threshold = own["CIRCUIT_WINDOW"], own["CIRCUIT_THRESHOLD"]
        row.failures = [*(at for at in row.failures if at > now - window), now][-threshold:]
        if row.opened_at is None and len(row.failures) >= threshold:
            log.error(
                "Circuit breaker OPENING: %s failures within %gs window (threshold: %s)", threshold, window, threshold
            )
            row.opened_at, row.probed_at = row.now, None
        elif probing:
            row.opened_at, row.probed_at = row.now, None
        row.save()

    @_if_the_database_answers
    @again_if_busy
    def answered(self, target: str) -> None:
        if Breaker.objects.filter(target=target).update(failures=[], opened_at=None, probed_at=None):
            log.warning("Circuit breaker cooldown complete. Closing circuit.")

    @_if_the_database_answers
    @again_if_busy
    def released(self, target: str) -> None:
        Breaker.objects.filter(target=target).update(probed_at=None)


def _cools_for(row: Breaker, now) -> float:
    """Seconds that an open breaker still cools down; 0.0 if it is closed or may be probed."""
    if row.opened_at is None:
        return 0.0
    return max(0.0, settings.JOBSITE["CIRCUIT_COOLDOWN"] - (now - row.opened_at).total_seconds())
