"""The one thread of a pool child that beats for the attempt it holds and ends it when it must end."""

import logging
import os
import signal
import threading
import time
from datetime import timedelta

from django.conf import settings
from django.db import Error, connection
from django.db.models.functions import Now

from . import dispatch, lifecycle, slots
from .attempt import Attempt
from .errors import ErrorCode, JobError, LeaseLost
from .faults import fault
from .models import Slot

log = logging.getLogger(__name__)

INTERRUPT = signal.SIGUSR2  # raised in the main thread when its own code does not look at `abort`
INTERRUPT_AFTER = 1.0  # seconds


class Heart:
    """Beats every HEARTBEAT_SECONDS, looks every WATCH_SECONDS whether the attempt was taken away, judges its clocks.

    It writes nothing of the attempt but its `abort`. What ignores its abort is interrupted once, and after
    ABORT_GRACE settled from here and ended by killing this process; the pool replaces it.
    """

    def __init__(self) -> None:
        self.slot: Slot | None = None
        self.queues: list[str] = []
        self.stopping = False  # SIGTERM came: finish nothing new
        self.claimed_at: float | None = None  # monotonic
        self._nudged = True
        self._stopping_since = 0.0  # monotonic
        self._attempt: Attempt | None = None
        self._woken_for: Attempt | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._ended = threading.Event()

    def start(self, queues: list[str], *, nudged: bool = True) -> None:
        """Begin beating for this process, once; registers its slot at the first chance.

        Not `nudged`: it asks the database by itself, so that idling beside due work does not mean that it is deaf.
        """
        self.queues = queues
        self._nudged = nudged
        self._ensure_thread()

    def hold(self, attempt: Attempt) -> None:
        """Beat for `attempt` from now on."""
        self.claimed_at = time.monotonic()
        self._attempt = attempt
        self._ensure_thread()
        if self.stopping:  # SIGTERM came between the claim and here
            self.terminate()

    def let_go(self) -> None:
        self._attempt = None

    def stop(self) -> None:
        """End the thread and wait for it; its connection is closed."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self.slot = None

    def lives(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def terminate(self, *_signal) -> None:
        """SIGTERM's handler: hand the running attempt back, claim no more."""
        self.stopping = True
        self._stopping_since = self._stopping_since or time.monotonic()
        if self._attempt is not None:
            self._attempt.end(JobError(ErrorCode.worker_shutdown))

    def _ensure_thread(self) -> None:
        if self._pid != os.getpid() or not self.lives():
            self._pid = os.getpid()
            self._ended = threading.Event()
            self._thread = threading.Thread(target=self._loop, name="heartbeat", daemon=True)
            self._thread.start()

    # --- the thread -----------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        own = settings.JOBSITE
        next_seen = time.monotonic()
        next_deaf_check = time.monotonic() + own["DEAF_SECONDS"]
        idle_since = time.monotonic()
        while not self._ended.is_set():
            attempt = self._attempt
            try:
                if attempt is not None:
                    fault("heartbeat.loop")
                    idle_since = time.monotonic()
                    self._watch(attempt)
                now = time.monotonic()
                if self.stopping:
                    self._end_when_abandoned(now)
                elif now >= next_seen:
                    self._seen()
                    next_seen = now + own["HEARTBEAT_SECONDS"]
                if self._nudged and attempt is None and now >= next_deaf_check:
                    next_deaf_check = now + own["DEAF_SECONDS"] / 4
                    self._end_if_deaf(idle_since)
            except Error as error:
                log.warning("Heartbeat could not reach the database: %s", type(error).__name__)
                connection.close_if_unusable_or_obsolete()
            except Exception:  # a bug of ours: the thread lives on, to see to it that the run ends
                log.exception("Heartbeat failed")
                if attempt is not None:
                    attempt.end(JobError(ErrorCode.internal_error, "The attempt's heartbeat failed."))
            self._ended.wait(own["WATCH_SECONDS"])
        connection.close()

    def _watch(self, attempt: Attempt) -> None:
        attempt.judge_clocks()
        if attempt.abort is None:
            self._beat(attempt)
            if attempt is not self._woken_for:  # it takes longer than one look: let others take what else is due
                self._woken_for = attempt
                dispatch.wake(attempt.lease.queue)
        elif not attempt.finished.is_set():
            self._enforce(attempt)

    def _beat(self, attempt: Attempt) -> None:
        now = time.monotonic()
        try:
            if now - attempt.beat_at >= settings.JOBSITE["HEARTBEAT_SECONDS"]:
                lifecycle.beat(attempt.lease, progress=attempt.fraction, stage=attempt.stage)
                attempt.beat_at = now  # when the beat began: the later half of a slow one is not trusted
                attempt.said.write()
            elif not lifecycle.holds(attempt.lease):
                raise LeaseLost(attempt.lease.job_id, attempt.lease.attempt)
        except LeaseLost as lost:
            if not attempt.finished.is_set():
                attempt.end(lost)

    def _enforce(self, attempt: Attempt) -> None:
        """Give the main thread its chance to notice the abort; then interrupt it; then end the process."""
        grace = settings.JOBSITE["ABORT_GRACE"]
        if attempt.finished.wait(min(INTERRUPT_AFTER, grace)):
            return
        if attempt.interruptible:
            signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT)
        if attempt.finished.wait(grace):
            return
        log.error("Job %s ignores its end; this worker process is killed", attempt.lease.job_id)
        try:
            if isinstance(attempt.abort, JobError):
                lifecycle.fail(attempt.lease, attempt.abort, stages=attempt.stages())
        except (LeaseLost, Error) as error:
            log.warning("Job %s could not be settled before the kill: %s", attempt.lease.job_id, type(error).__name__)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)

    def _seen(self) -> None:
        if self.slot is None:
            self.slot = slots.register(self.queues)
            return
        claimed = {}
        if self.claimed_at is not None:
            claimed["claimed_at"] = Now() - timedelta(seconds=time.monotonic() - self.claimed_at)
        if not Slot.objects.filter(pk=self.slot.pk).update(seen_at=Now(), **claimed):
            self.slot = slots.register(self.queues)

    def _end_when_abandoned(self, now: float) -> None:
        """TERM came to this process alone and its worker lives on: end, so that the pool starts one that works."""
        if self._attempt is None and now - self._stopping_since > 2 * settings.CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT:
            os.kill(os.getpid(), signal.SIGKILL)

    def _end_if_deaf(self, idle_since: float) -> None:
        """Idle beside due work for DEAF_SECONDS: this worker no longer hears nudges. Its supervisor starts another."""
        limit = settings.JOBSITE["DEAF_SECONDS"]
        since = max(idle_since, self.claimed_at or 0.0)
        if self.stopping or time.monotonic() - since < limit:
            return
        if any(dispatch.overdue(queue, limit) for queue in self.queues):
            log.error("Deaf: jobs are due and this idle worker hears no nudge; it ends itself")
            parent = os.getppid()
            if self.slot is not None and parent == self.slot.parent_pid:  # not who adopts the orphans of this host
                os.kill(parent, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)


heart = Heart()
