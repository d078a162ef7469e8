"""Celery tasks: a name, one call each. The watchmen take their period's turn first, so doubles do no harm."""

import contextlib
import gc
import logging
import os
import signal
from collections.abc import Callable
from functools import wraps
from typing import Any

from billiard import active_children, current_process
from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import (
    beat_init,
    celeryd_after_setup,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from django.conf import settings
from django.db import Error, close_old_connections, connection

from jobsite import tracing
from tokens import ledger

from . import (
    alerts,
    artifacts,
    blobs,
    cleanup,
    dispatch,
    health,
    integrity,
    kinds,
    mail,
    parts,
    ping,
    policies,
    remote,
    retention,
    runner,
    slots,
    stats,
    tally,
    throttles,
    upkeep,
    webhook_sender,
    webhooks,
)
from .heartbeat import heart
from .uploads import sweep_unused

log = logging.getLogger(__name__)


# Celery's own limits come after the runner's: soft ends the process from within, hard from outside (seconds).
SOFT = policies.run_most() + settings.JOBSITE["RUN_GRACE"] + settings.JOBSITE["LINGER_SECONDS"] + 60
HARD = SOFT + 60


@shared_task(name="jobs.work", soft_time_limit=SOFT, time_limit=HARD)
def work(queue: str) -> int:
    """A nudge. Claim and run due jobs of `queue` for about two seconds, then listen for more; how many were run is only
    for the log.

    Carries no job id: the row says what is due, so a lost, late or doubled message changes no outcome. A queue that
    no kind has claims nothing. Celery's limits are the last resort: this process ends and the pool replaces it.
    """
    if not isinstance(queue, str) or queue not in dispatch.work_queues():
        return 0
    connection.close_if_unusable_or_obsolete()
    try:
        if _may_linger():
            return runner.serve(queue, heart.queues)
        return runner.drain(queue, seconds=settings.JOBSITE["DRAIN_SECONDS"])
    except (SoftTimeLimitExceeded, MemoryError):
        os.kill(os.getpid(), signal.SIGKILL)
        raise
    except (OSError, RuntimeError):  # not the kind's: no descriptor or thread is left to begin or to end a run with
        log.exception("This worker process can run no job and ends")
        os.kill(os.getpid(), signal.SIGKILL)
        raise


def _may_linger() -> bool:
    """Whether this process may keep its slot while it waits: nothing but nudges comes to its worker, whose main process
    sees to the broker meanwhile."""
    only_nudges = bool(heart.queues) and set(_served_queues) <= set(heart.queues)
    return only_nudges and not _is_main() and settings.JOBSITE["LINGER_SECONDS"] > 0


def watchman(work: Callable[[], int]) -> Any:
    """The task jobs.<name> of a watchman: its work, once a period."""

    @shared_task(name=f"jobs.{work.__name__}")
    @wraps(work)
    def task() -> int:
        if connection.connection is not None and not connection.is_usable():
            connection.close()  # it is kept between tasks, and was cut since: the turn is not lost by that
        return upkeep.turn(work.__name__, work)

    return task


@watchman
def dispatch_due() -> int:
    """Beat, every 5 seconds: jobs past their deadline are cancelled; nudges for due jobs that no message speaks for.
    Returns how many were sent."""
    cleanup.cancel_late()
    return dispatch.top_up(dispatch.work_queues())


@watchman
def monitor_heartbeats() -> int:
    """Beat, every 30 seconds: end what no worker is alive for. Returns how many attempts it ended."""
    return len(cleanup.monitor_heartbeats().settled)


@watchman
def cleanup_stuck_jobs() -> int:
    """Beat, every 15 minutes: settle and refund what is stuck. Returns how many; the CleanupRun row says more."""
    report = cleanup.cleanup_stuck_jobs(by="beat")
    if not report.failed:
        ping.alive()
    return report.cleaned


@watchman
def sweep_remote() -> int:
    """Beat, every minute: cancel what nobody waits for on RunPod. Returns how many are over."""
    return remote.sweep().ended


@watchman
def count_events() -> int:
    """Beat, every 15 seconds: add new events to the totals of the metrics. Returns how many."""
    return tally.fold()


@watchman
def check_alerts() -> int:
    """Beat, every minute: tell the operator what has gone wrong, or is well again. Returns how many messages."""
    return alerts.check()


@watchman
def deliver_webhooks() -> int:
    """Beat, every 10 seconds: messages about jobs that ended, and threads that deliver what is due and tell owners
    what was muted. Returns how many messages were made."""
    from .api import objects  # here, and not in every worker: views take long to import

    try:
        return webhooks.owe(lambda jobs: objects.many(None, jobs))
    finally:
        webhook_sender.deliver_in_background()
        webhook_sender.tell_in_background()


@watchman
def send_mail() -> int:
    """Beat, every 15 seconds: letters to users, and a thread that sends what is due. Returns how many were written."""
    try:
        return mail.owe()
    finally:
        mail.start()


@watchman
def sweep_storage() -> int:
    """Beat, daily: delete orphaned outputs and unused uploads, look whether the outputs are whole. Returns how many
    files were deleted or found damaged."""
    return _one_by_one("The storage could not be swept", artifacts.sweep, sweep_unused, parts.sweep, integrity.check)


def _one_by_one(failed: str, *sweeps: Callable[[], int]) -> int:
    """What the sweeps returned in all. One that meets its storage or database on a bad day waits for its next turn and
    keeps no other from this one."""
    found = 0
    for sweep in sweeps:
        try:
            found += sweep()
        except OSError as error:
            log.warning("%s: %s", failed, blobs.words(error))
        except Error as error:
            log.warning("%s: %s", failed, type(error).__name__)
            connection.close_if_unusable_or_obsolete()
    return found


@watchman
def take_sample() -> int:
    """Beat, every minute: keep a line of the platform's figures for the operator's first screen. Returns how many."""
    stats.take_sample()
    return 1


@watchman
def apply_retention() -> int:
    """Beat, hourly: delete jobs that ended longer ago than RETENTION_DAYS allows, old messages of webhooks, old
    letters, and counters of tries that are over. Returns how many in all."""
    sweeps = (retention.apply, webhooks.sweep, mail.sweep, throttles.sweep)
    return _one_by_one("Old rows could not be swept", *sweeps)


@watchman
def reconcile_tokens() -> int:
    """Beat, daily: accounts whose ledger and balance differ are logged. Returns how many."""
    drifted = ledger.drifted()
    for account_id, balance, total in drifted:
        log.error("Account %s drifts: balance %s, ledger %s", account_id, balance, total)
    return len(drifted)


# --- a worker's processes ------------------------------------------------------------------------------------------

HAND_BACK = signal.SIGRTMIN  # main process to pool children: hand back what you run, claim no more


def _is_main() -> bool:
    return current_process().name == "MainProcess"


@worker_process_init.connect
def _pool_child_started(**_) -> None:
    """A pool child begins: its own connections, its ear for the end of the worker, its heartbeat."""
    close_old_connections()
    if not _is_main():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # billiard would put its own in place of a handler of ours
        signal.signal(HAND_BACK, heart.terminate)
        slots.adopt_orphans()
    tracing.start(settings.PROCESS or "worker")
    try:
        runner.sweep_work_folders()
    finally:  # whatever that meets: without a slot and a heartbeat nobody would know of this process
        heart.start([queue for queue in _served_queues if queue in dispatch.work_queues()])


@worker_process_shutdown.connect
def _pool_child_ends(**_) -> None:
    dispatch.flush()


_served_queues: list[str] = []


@celeryd_after_setup.connect
def _before_the_pool(instance, **_) -> None:
    _served_queues[:] = sorted(instance.app.amqp.queues.consume_from)
    gc.freeze()  # the pool children share what is loaded, and a fork has nothing of it to look through


@worker_ready.connect
def _worker_ready(sender, **_) -> None:
    log.info("Media walls: %s", health.walls().detail)
    log.info("Worker ready; queues: %s; kinds: %s", ", ".join(_served_queues), ", ".join(kinds.names()))
    if "upkeep" in _served_queues:
        log.info("Heartbeat monitor started")
        for task, period in upkeep.schedule().values():  # at once: Beat sends a first one a period later
            if period <= 60:
                sender.app.send_task(task, queue="upkeep", retry=False)


@worker_shutting_down.connect
def _worker_shutting_down(sig=None, **_) -> None:
    """Celery tells its pool children nothing when it is asked to end: pass it on, so that running jobs are handed
    back within the grace. A solo worker's main process runs the jobs itself."""
    log.warning("Received signal %s. Shutting down gracefully...", getattr(signal, str(sig), signal.SIGTERM).value)
    heart.terminate()
    for child in active_children():
        with contextlib.suppress(ProcessLookupError):  # it ended by itself; the others still want to be told
            os.kill(child.pid, HAND_BACK)


@worker_shutdown.connect
def _worker_ended(**_) -> None:
    log.warning("Worker shutdown complete.")


@beat_init.connect
def _beat_started(**_) -> None:
    upkeep.install()
