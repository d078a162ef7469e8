"""This host: who may read our files, whose rights we have, room on the disk, what is installed."""

import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from django.conf import settings
from django.core.checks import CheckMessage
from django.db import connection

from .. import artifacts, blobs
from .examine import error, examination, note, warning

LEAST_SECRET = 24  # characters
OLDEST = {"celery": (5, 7), "kombu": (5, 7)}  # older ones go deaf when their broker restarts
OLDEST_SQLITE = (3, 37)
OF_SECRETS = re.compile(r"\w*(KEY|TOKEN|SECRET|PASSWORD|DSN|DATABASE_URL|BROKER_URL|EMAIL_URL|WEBHOOK_URL)_FILE")
SECRETS = ("CRON_SECRET", "ADMIN_API_KEY")


@examination("secrets")
def secrets() -> Iterator[CheckMessage]:
    files = [
        settings.HOME / "secret_key",
        Path(settings.DATABASES["default"]["NAME"] or ""),
        settings.BASE_DIR / ".env",
    ]
    files += [Path(path) for name, path in os.environ.items() if OF_SECRETS.fullmatch(name) and path]
    for file in files:
        if _open_to_all(file):
            yield error("E120", f"Every user of this host can read {file}.", f"chmod o-rwx {file}")
    given = {name: getattr(settings, name) for name in SECRETS} | {"METRICS_TOKEN": settings.JOBSITE["METRICS_TOKEN"]}
    for name, value in given.items():
        if value and (len(value) < LEAST_SECRET or len(set(value)) < 10):
            found = error if settings.PRODUCTION else warning
            yield found(
                "E121" if settings.PRODUCTION else "W121",
                f"{name} is short enough to be guessed.",
                'Make one: python3 -c "import secrets; print(secrets.token_urlsafe(32))"',
            )


def _open_to_all(file: Path) -> bool:
    """Whether every user can read or change it. What we ourselves may not look at, other users may not either."""
    try:
        return file.is_file() and bool(file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH)) and not _closed_above(file)
    except OSError:
        return False


def _closed_above(file: Path) -> bool:
    """Whether a folder above keeps other users out."""
    return any(not folder.stat().st_mode & stat.S_IXOTH for folder in file.absolute().parents)


@examination("rights")
def rights() -> Iterator[CheckMessage]:
    if os.geteuid() == 0:
        yield warning(
            "W122",
            "Jobsite runs as root: media of strangers is decoded here.",
            "Give it a user of its own that owns JOBSITE_HOME.",
        )


@examination("room on the disk")
def disk() -> Iterator[CheckMessage]:
    free, least = artifacts.free_bytes(), settings.JOBSITE["DISK_FREE_BYTES"]
    if free < least:
        yield error(
            "E123", f"{free // 1024**2} MiB are free: new jobs are refused.", "Make room, or set RETENTION_DAYS."
        )
    elif free < 10 * least:
        yield warning(
            "W124",
            f"{free // 1024**2} MiB are free; below {least // 1024**2} MiB new jobs are refused.",
            "Make room, or set RETENTION_DAYS (docs/storage.md).",
        )
    inodes = os.statvfs(settings.HOME)
    if inodes.f_files and inodes.f_favail < 0.02 * inodes.f_files:
        yield warning("W125", "The disk has room but hardly a free inode.", "Delete small files: df -i shows the disk.")


@examination("storage takes files")
def storage() -> Iterator[CheckMessage]:
    try:
        artifacts.probe_writable()
    except OSError as wrong:
        yield error(
            "E126",
            f"The storage refuses a small file: {blobs.words(wrong)}.",
            "Check STORAGE_URL, its key's rights and the disk: a file must be written and deleted.",
        )


@examination("versions")
def versions() -> Iterator[CheckMessage]:
    for name, least in OLDEST.items():
        found = version(name)
        if tuple(map(int, re.findall(r"\d+", found)[:2])) < least:
            yield error("E127", f"{name} {found} is too old.", "pip install -r requirements.txt")
    pinned = settings.BASE_DIR / "requirements.txt"
    differ = []
    for name, wanted in (
        re.findall(r"^([\w.-]+)(?:\[.*\])?==(\S+)", pinned.read_text(), re.M) if pinned.exists() else ()
    ):
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "none"
        if found != wanted:
            differ.append(f"{name} {found} instead of {wanted}")
    if differ:
        yield note("I128", f"Not what Jobsite was tested with: {', '.join(differ)}.", "pip install -r requirements.txt")
    if connection.vendor == "sqlite" and sqlite3.sqlite_version_info < OLDEST_SQLITE:
        yield error("E129", f"SQLite {sqlite3.sqlite_version} is too old.", "Use Python 3.11 or newer from python.org.")
    if not shutil.which("setpriv"):
        yield warning(
            "W130", "util-linux's setpriv is missing: killed processes may leave children.", "Install util-linux."
        )
