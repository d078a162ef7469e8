"""Nudges: "there may be work in this queue", rung to a pool child that listens, else sent as a broker message. Losing
or doubling one changes no outcome."""

import atexit
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from celery import current_app
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from kombu.exceptions import OperationalError as BrokerError

from . import kinds, slots
from .doorbell import GAP, Bells, Ears
from .models import Job, Pause, Status

log = logging.getLogger(__name__)

ENOUGH = 100  # nudges of a queue in the broker: while all slots are busy, nobody takes them
PAUSE = 5.0  # seconds without nudges after the broker failed; the top-up brings them later


class _Sender:
    """A thread that sends this process's nudges, so that no request and no commit ever waits for the broker."""

    def __init__(self) -> None:
        self.failed = 0  # nudges that could not be sent since the process began
        self._pid = 0
        self._reset()

    def _reset(self) -> None:
        self._wanted: dict[str, None] = {}
        self._wake = threading.Condition()
        self._idle = threading.Event()
        self._idle.set()

    def want(self, queue: str) -> None:
        if self._pid != os.getpid():  # a thread does not survive a fork
            self._reset()
            threading.Thread(target=self._loop, name="nudges", daemon=True).start()
            self._pid = os.getpid()  # last: a host without room for one more thread may have it the next time
        with self._wake:
            self._wanted[queue] = None
            self._idle.clear()
            self._wake.notify()

    def flush(self, seconds: float) -> None:
        """Wait until all wanted nudges are sent, at most `seconds`; a process that ends calls it."""
        if self._pid == os.getpid():
            self._idle.wait(seconds)

    def _loop(self) -> None:
        silent_until = 0.0
        while True:
            with self._wake:
                if not self._wanted:
                    self._idle.set()
                while not self._wanted:
                    self._wake.wait()
                queues, self._wanted = list(self._wanted), {}
            if time.monotonic() < silent_until:
                continue
            try:
                for queue in queues:
                    send(queue, ring=True)
            except (BrokerError, OSError) as error:
                self.failed += 1
                silent_until = time.monotonic() + PAUSE
                log.warning("Broker does not take nudges (%s); next try in %.0f s", type(error).__name__, PAUSE)
            time.sleep(GAP)


_sender = _Sender()
atexit.register(_sender.flush, 1.0)
_bells: dict[tuple[int, int], Bells] = {}  # of each process and thread: they may not share a connection


def send(queue: str, *, ring: bool = False) -> None:
    """Send one nudge now, unless enough lie in the broker; with `ring` only if nobody listens. BrokerError or OSError
    if the broker does not take it within half a second."""
    mine = (os.getpid(), threading.get_ident())
    if mine not in _bells:
        for pid, thread in list(_bells):
            if pid != os.getpid():  # a connection does not survive a fork
                _bells.pop((pid, thread), None)
        _bells[mine] = Bells()
    try:
        if (ring and _bells[mine].ring(queue)) or _bells[mine].waiting(queue) >= ENOUGH:
            return
        options = {"connection": _bells[mine].broker, "retry": False, "ignore_result": True}
        current_app.send_task("jobs.work", args=[queue], queue=queue, **options)
    except (BrokerError, OSError):
        _bells.pop(mine).broker.release()
        raise


def forget_connections() -> None:
    """Drop the kept connection: the next nudge opens one to the broker that is configured then."""
    while _bells:
        _bells.popitem()[1].broker.release()


def nudge(queue: str) -> None:
    """Say after the commit that `queue` has work; outside a transaction, now. Never raises, never waits."""
    transaction.on_commit(lambda: _sender.want(queue), robust=True)


def flush(seconds: float = 1.0) -> None:
    """Wait until this process's wanted nudges are sent, at most `seconds`; for a process that ends."""
    _sender.flush(seconds)


def failed_nudges() -> int:
    """How many sends this process could not deliver."""
    return _sender.failed


def work_queues() -> list[str]:
    """The queues that jobs of the installed kinds wait in; RENDERs sold under another engine are in its queue."""
    return sorted({*kinds.queues(), "gpu", "remote"})


def free_slots(queue: str) -> int:
    """Pool children that serve `queue`, were seen lately and run nothing."""
    busy = Job.objects.filter(status=Status.RUNNING, slot=OuterRef("pk"))
    served = slots.beating().filter(~Exists(busy)).values_list("queues", flat=True)
    return sum(queue in queues for queues in served)


def claimable(queue: str) -> QuerySet[Job]:
    """The jobs of `queue` that could be claimed now; none while it is paused."""
    held = Pause.objects.filter(queue=queue)
    in_time = Q(cancel_at=None) | Q(cancel_at__gt=Now())
    return Job.objects.filter(in_time, ~Exists(held), queue=queue, run_after__isnull=False, run_after__lte=Now())


def due(queue: str, most: int) -> int:
    """How many jobs of `queue` could be claimed now, counted to `most`."""
    return claimable(queue).order_by("queue", F("priority").desc(), "run_after")[:most].count() if most else 0


_ears = Ears()


def listen(queues: list[str], seconds: float, *, stop: Callable[[], bool]) -> str | None:
    """Wait until one of `queues` has, or may have, work that could be claimed: which, None after `seconds` or when it
    is to `stop`; nothing was due then. BrokerError if the broker does not answer or has no bells."""

    def look() -> str | None:
        return next((queue for queue in random.sample(queues, len(queues)) if due(queue, 1)), None)

    return _ears.listen(queues, seconds, look=look, stop=stop)


def others_listen(queue: str) -> bool:
    """Whether a pool child listens for `queue`, asked by one that does not. False if the broker does not say."""
    try:
        return _ears.others_hear(queue)
    except (BrokerError, OSError):
        return False


def top_up(queues: list[str], *, most: int = 1000) -> int:
    """Send what nudges the rows call for: min(due jobs, free slots) a queue. Returns how many were sent.

    By message: a process that was frozen while it listened hears every ring, and does nothing.
    """
    sent = 0
    for queue in queues:
        for _ in range(due(queue, min(most, free_slots(queue)))):
            send(queue)
            sent += 1
    return sent


def wake(queue: str) -> None:
    """Nudge one more worker if a slot is free beside due work; the heartbeat does it once for each longer job."""
    if due(queue, min(1, free_slots(queue))):
        nudge(queue)


def overdue(queue: str, seconds: float) -> bool:
    """Whether a job of `queue` could have been claimed for over `seconds`."""
    return claimable(queue).filter(run_after__lt=Now() - timedelta(seconds=seconds)).exists()
