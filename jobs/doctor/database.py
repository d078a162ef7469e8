"""The database: does it keep what it was told, is it up to date, does its clock agree, do the watchmen run."""

import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.core.checks import CheckMessage
from django.db import connection
from django_celery_beat.models import PeriodicTask

from .. import health, upkeep
from .examine import error, examination, note, warning

CLOCKS_PART = 2.0  # seconds between the database's clock and this host's
MOUNTS = Path("/proc/mounts")
NETWORKS = {"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "ceph", "glusterfs"}
UNSAFE = {
    "fsync": ("E113", "may lose or tear everything at a power cut"),
    "full_page_writes": ("E114", "may tear pages at a power cut"),
    "synchronous_commit": ("W115", "may lose the last bookings at a power cut"),
}


@examination("does the database keep what it was told")
def durability() -> Iterator[CheckMessage]:
    yield from _sqlite() if connection.vendor == "sqlite" else _postgres()


def _sqlite() -> Iterator[CheckMessage]:
    if (mode := _ask("PRAGMA journal_mode")) != "wal":
        yield error(
            "E110",
            f"SQLite's journal mode is {mode}, not WAL: readers and the writer stop each other.",
            "Put JOBSITE_HOME on a local disk: WAL needs shared memory, which network file systems lack.",
        )
    if int(_ask("PRAGMA synchronous")) < 2:
        yield note(
            "I111",
            "SQLITE_SYNCHRONOUS is NORMAL: the last commits, bookings among them, may be lost at a power cut.",
            "Unset it unless the speed is worth that.",
        )
    if kind := _network(Path(settings.DATABASES["default"]["NAME"])):
        yield error(
            "E112",
            f"The SQLite file is on a network file system ({kind}): its locks do not hold there.",
            "Put JOBSITE_HOME on a local disk, or use PostgreSQL (DATABASE_URL).",
        )


def _network(file: Path) -> str:
    """The network file system that holds `file`; empty if it is a local one."""
    lines = MOUNTS.read_bytes().splitlines()  # a mount point may be called anything
    mounts = [(_plain(line.split()[1]), line.split()[2].decode()) for line in lines]
    real = file.resolve()
    above = [(where, kind) for where, kind in mounts if real.is_relative_to(where)]
    # of two at one place the later counts: an automounter's own stays below what it has mounted there
    kind = max(enumerate(above), key=lambda one: (len(one[1][0]), one[0]))[1][1] if above else ""
    return kind if kind in NETWORKS else ""


def _plain(place: bytes) -> str:
    """A mount point as proc(5) writes it, where octal numbers stand for space, tab, line end and backslash."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), place))


def _postgres() -> Iterator[CheckMessage]:
    for name, (number, what) in UNSAFE.items():
        if _ask(f"SHOW {name}") == "off":
            found = error if number.startswith("E") else warning
            yield found(number, f"PostgreSQL runs with {name} off: it {what}.", f"Set {name} = on and reload it.")


@examination("clocks")
def clocks() -> Iterator[CheckMessage]:
    """Jobs' times are the database's; sessions, certificates and signed links are judged by this host's."""
    began = time.time()
    said = _ask("SELECT strftime('%s', 'now')" if connection.vendor == "sqlite" else "SELECT clock_timestamp()")
    theirs = said if isinstance(said, datetime) else datetime.fromtimestamp(int(said), UTC)
    apart = theirs.timestamp() - (began + time.time()) / 2
    if abs(apart) > CLOCKS_PART:
        yield warning(
            "W116",
            f"The database's clock is {apart:+.0f} s from this host's.",
            "Let both keep time by NTP (timedatectl set-ntp true). No job is harmed: all job times are the database's.",
        )


@examination("migrations")
def migrations() -> Iterator[CheckMessage]:
    if waiting := health.unapplied():
        yield error("E117", f"{waiting} migrations are not applied.", "Run manage.py migrate.")


@examination("watchmen", live=True)
def watchmen() -> Iterator[CheckMessage]:
    """Beat and the upkeep worker: without them nothing is retried, reaped, refunded or told."""
    late = [check for check in health.ticks() if not check.ok]
    for check in late:
        name = check.code.removeprefix("tick_")
        yield warning(
            "W118",
            f"The watchman {name} {check.detail}.",
            "Is Beat up, and the upkeep worker? log/beat.log, log/upkeep.log.",
        )
    for task in PeriodicTask.objects.filter(name__in=upkeep.schedule(), enabled=False):
        yield warning(
            "W119",
            f"The watchman {task.name} is switched off.",
            "Admin, Periodic tasks: enable it, unless you did this on purpose.",
        )


def _ask(sql: str):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]
