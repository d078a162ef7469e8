"""The processes of this machine as Linux's /proc shows them. Any of them may end between two steps of a walk."""

import os
from collections.abc import Iterator
from pathlib import Path

GONE = (FileNotFoundError, ProcessLookupError)  # the folder has gone; its process went while a file of it was opened


def pids() -> Iterator[int]:
    """Every process's pid, by names alone: `Path.glob` opens what it finds, and raises if a process ends meanwhile."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on: state, parent's pid, …; empty if there is no such process, or
    if the host shows it to its own user only (`hidepid`)."""
    try:
        # Bytes: the second field is the name, which may be any, and which the kernel cuts in the middle of a letter.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode("ascii").split()
    except (*GONE, PermissionError):
        return []


def owner(pid: int) -> int | None:
    """The user id that a process runs as: its folder is its user's, whatever it does to hide. None if there is none."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except GONE:
        return None


def parent(pid: int) -> int | None:
    """A process's parent, also one's that has ended and waits to be reaped; None if there is no such process."""
    fields = stat(pid)
    return int(fields[1]) if fields else None


def started(pid: int) -> int | None:
    """A process's start in clock ticks after boot (field 22); None if there is none, or it waits to be reaped."""
    fields = stat(pid)
    return int(fields[19]) if fields and fields[0] not in ("Z", "X") else None
