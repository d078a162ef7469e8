"""Is the platform well? Read from clocks that the processes themselves keep; busy is never red.

What may hang or cost (broker, storage, ledger) is asked rarely and remembered, so that a probe answers at once.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from celery import current_app
from django.conf import settings
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import OuterRef, Subquery
from django.db.models.functions import Coalesce, Now
from kombu.exceptions import OperationalError as BrokerError

from tokens.models import Account, Transaction

from . import artifacts, breakers, dispatch, intake, kinds, slots, upkeep
from .models import Pause, Tick

BROKER_TIMEOUT = 0.5  # seconds
REMEMBER = 3.0  # seconds that an answer of broker and storage is believed
LEDGER_EVERY = 60.0  # seconds, at least; see `_remembered`
SHORT = 10.0  # seconds: a watchman of a shorter period must have run once before a new platform is well


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `detail` is for operators only."""

    code: str
    ok: bool
    detail: str = ""
    number: int | None = None  # what was counted, for the metrics


def report() -> list[Check]:
    """Every check. Without a database only what needs none, and the database's own."""
    alone = [_broker(), _storage(), _disk(), walls()]
    reached = _database()
    if not reached.ok:
        return [reached, *alone]
    try:
        return [reached, *alone, _ledger(), *ticks(), *_queues(), *_pauses(), *_breakers()]
    except Error as error:
        connection.close_if_unusable_or_obsolete()
        return [Check("database", False, type(error).__name__), *alone]


def ready() -> list[Check]:
    """What the web process itself needs: database, storage, migrations."""
    reached = _database()
    return [reached, _storage(), *([_migrations()] if reached.ok else [])]


# --- one by one ----------------------------------------------------------------------------------------------------


def _database() -> Check:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error as error:
        connection.close_if_unusable_or_obsolete()
        return Check("database", False, type(error).__name__)
    return Check("database", True)


def unapplied() -> int:
    """How many migrations wait."""
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


_migrated = False


def _migrations() -> Check:
    """Asked until the answer is yes: applied migrations stay applied."""
    global _migrated
    if not _migrated:
        if waiting := unapplied():
            return Check("migrations", False, f"{waiting} not applied; run manage.py migrate")
        _migrated = True
    return Check("migrations", True)


def _disk() -> Check:
    free = artifacts.free_bytes()
    ok = free >= settings.JOBSITE["DISK_FREE_BYTES"]
    return Check("disk", ok, f"{free // 1024**2} MiB free; new jobs need DISK_FREE_BYTES")


def walls() -> Check:
    """What this host lacks of the walls around media is told, not red: so it is until somebody changes the host."""
    gaps = intake.wall_gaps()
    return Check("walls", True, f"missing: {'; '.join(gaps)}" if gaps else "complete")


def ticks() -> list[Check]:
    """A watchman is late after two periods, also into the future: the clock was set back since it ran. One that never
    ran counts from when it was installed if its period is long, and as late if it is short."""
    checks = []
    rows = {tick.name: tick for tick in Tick.objects.annotate(now=Now())}
    for name, (_, period) in upkeep.schedule().items():
        tick = rows.get(name)
        ran_at = tick and tick.ran_at
        since = ran_at or (tick.since if tick and period >= SHORT else None)
        age = None if since is None else (tick.now - since).total_seconds()
        detail = "has not run yet" if ran_at is None else f"ran {age:.0f} s ago, period {period:g} s"
        checks.append(Check(f"tick_{name}", age is not None and abs(age) <= 2 * period + 1, detail))
    return checks


def _queues() -> list[Check]:
    """Each queue that a kind needs has a beating worker, and no due job waits long beside a free slot."""
    served = list(slots.beating().values_list("queues", flat=True))
    checks = []
    for queue in kinds.queues():
        beating = sum(queue in queues for queues in served)
        checks.append(Check(f"worker_{queue}", beating > 0, f"{beating} slots beat"))
        wait = settings.JOBSITE["DEAF_SECONDS"]
        deaf = dispatch.overdue(queue, wait) and dispatch.free_slots(queue) > 0
        checks.append(
            Check(f"deaf_{queue}", not deaf, f"due jobs wait over {wait:g} s beside a free slot" if deaf else "")
        )
    return checks


def _pauses() -> list[Check]:
    """A queue that an operator holds is told, not red."""
    return [
        Check(f"paused_{row.queue}", True, f"since {row.since:%Y-%m-%d %H:%M}: {row.reason}")
        for row in Pause.objects.all()
    ]


def _breakers() -> list[Check]:
    """An outside service that is left alone is told, not red: jobs wait for it or do without."""
    return [
        Check(
            f"breaker_{target}", True, state if state == "closed" else f"{state}, {wait:.0f} s until it may be probed"
        )
        for target, state, wait in breakers.states()
    ]


# --- remembered ----------------------------------------------------------------------------------------------------


class _Remembered:
    """An answer that is asked for again only after `seconds`, or after 200 times as long as asking took."""

    def __init__(self, ask: Callable[[], Check], seconds: float):
        self.ask, self.seconds = ask, seconds
        self.lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Ask at the next call, whatever is known."""
        self.answer, self.until = None, 0.0

    def __call__(self) -> Check:
        if self.answer is None or time.monotonic() >= self.until:
            with self.lock:
                if self.answer is None or time.monotonic() >= self.until:
                    began = time.monotonic()
                    self.answer = self.ask()
                    took = time.monotonic() - began
                    self.until = time.monotonic() + max(self.seconds, min(200 * took, 3600.0) if self.answer.ok else 0)
        return self.answer


def _ask_broker() -> Check:
    options = {**settings.CELERY_BROKER_TRANSPORT_OPTIONS}
    options |= {"socket_timeout": BROKER_TIMEOUT, "socket_connect_timeout": BROKER_TIMEOUT, "max_retries": 0}
    try:
        with current_app.connection_for_read(connect_timeout=BROKER_TIMEOUT, transport_options=options) as broker:
            broker.ensure_connection(max_retries=1, timeout=BROKER_TIMEOUT)
            broker.default_channel  # noqa: B018 - opening it is the question
    except (BrokerError, OSError, *_broker_errors()) as error:
        return Check("broker", False, type(error).__name__)
    return Check("broker", True)


def _broker_errors() -> tuple[type[Exception], ...]:
    transport = current_app.connection_for_read().transport
    return (*transport.connection_errors, *transport.channel_errors)


def _ask_storage() -> Check:
    try:
        artifacts.probe_writable()
    except OSError as error:
        return Check("storage", False, artifacts.storage_words(error))
    return Check("storage", True)


def _ask_ledger() -> Check:
    """Every balance is what its last ledger line left; that the lines add up is checked daily (reconcile_tokens)."""
    last = Transaction.objects.filter(account=OuterRef("pk")).order_by("-id").values("balance_after")[:1]
    drifted = Account.objects.exclude(balance=Coalesce(Subquery(last), 0)).count()
    words = f"{drifted} accounts drift; run manage.py reconcile_tokens" if drifted else ""
    return Check("ledger", drifted == 0, words, drifted)


_broker = _Remembered(_ask_broker, REMEMBER)
_storage = _Remembered(_ask_storage, REMEMBER)
_ledger = _Remembered(_ask_ledger, LEDGER_EVERY)
