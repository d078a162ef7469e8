"""This pool child as a row, and whether other processes of this host still exist."""

import contextlib
import ctypes
import os
import signal
import socket
import uuid
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.db.models import QuerySet
from django.db.models.functions import Now

from . import procfs
from .models import Slot

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def boot_id() -> str:
    """Names this boot of this machine, and our namespace of pids: pids and start times are only comparable within one.

    Containers of one host may share its name: to each other, their processes would be gone.
    """
    try:
        boot = uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        return str(uuid.uuid5(boot, os.readlink("/proc/self/ns/pid")))
    except OSError:
        return "unknown"


def children() -> set[int]:
    """The pids of this process's children, those too that have ended and wait to be reaped."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # none at all: the usual answer, without a walk over /proc
        return set()
    return {pid for pid in procfs.pids() if procfs.parent(pid) == os.getpid()}


def adopt_orphans() -> None:
    """Become the parent of whatever a child leaves behind, however it hid: so that `kill_children` finds it (Linux)."""
    with contextlib.suppress(AttributeError):  # no prctl elsewhere
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_children(*, except_for: set[int]) -> None:
    """Kill and reap the children that a run left behind, and theirs, which come to us as they are orphaned."""
    while left := children() - except_for:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # a thread of the run's reaped it first
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def register(queues: list[str]) -> Slot:
    """Write this process's slot row."""
    pid = os.getpid()
    return Slot.objects.update_or_create(
        host=socket.gethostname(),
        boot_id=boot_id(),
        pid=pid,
        process_started=procfs.started(pid) or 0,
        defaults={"queues": queues, "seen_at": Now(), "parent_pid": os.getppid()},
    )[0]


def here() -> dict[str, str]:
    """What the slots of this host have in common, as a filter."""
    return {"host": socket.gethostname(), "boot_id": boot_id()}


def seen_within() -> float:
    """Seconds without a sign of its slot after which a pool child no longer counts as beating."""
    return max(10.0, 3 * settings.JOBSITE["HEARTBEAT_SECONDS"])


def beating() -> QuerySet[Slot]:
    """The pool children that were seen lately, on all hosts."""
    return Slot.objects.filter(seen_at__gte=Now() - timedelta(seconds=seen_within()))


def serving(queue: str) -> int:
    """How many pool children work on a queue."""
    return sum(queue in queues for queues in beating().values_list("queues", flat=True))


def gone(slot: Slot) -> bool:
    """Whether a slot of this host has no process any more."""
    return procfs.started(slot.pid) != slot.process_started
