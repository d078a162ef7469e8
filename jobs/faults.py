"""Named points at which a test makes the process die, stop, raise or wait. Off unless JOBSITE_FAULTS is set.

`JOBSITE_FAULTS="settle.before_commit=kill;publish.stored=sleep:3"`: each fires once in the life of a JOBSITE_HOME,
in whichever process passes first. Refused in production by the settings.
"""

import os
import signal
import time

from django.conf import settings

_PLAN = dict(item.split("=", 1) for item in os.environ.get("JOBSITE_FAULTS", "").split(";") if item)


class FaultInjected(RuntimeError):
    """What the action `raise` raises."""


def fault(point: str) -> None:
    """Pass a named point: one dict look-up unless a plan names it."""
    if point in _PLAN and _first_time(point):
        _act(*_PLAN[point].partition(":")[::2])


def _first_time(point: str) -> bool:
    folder = settings.HOME / "faults"
    folder.mkdir(exist_ok=True)
    try:
        os.close(os.open(folder / point, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _act(action: str, argument: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "kill_main":  # of a pool child: its worker's main process, while this one is at the point
        os.kill(os.getppid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "sleep":
        time.sleep(float(argument))
    elif action == "raise":
        raise FaultInjected(argument or "planned")
    else:
        raise ValueError(f"JOBSITE_FAULTS: unknown action {action!r}")
