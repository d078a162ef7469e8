"""Every call of the storage: tried again after what may pass, and behind its breaker where it is another service."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from django.conf import settings
from django.core.files import File
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import Error, connection

from .breakers import breaker
from .engines import retry
from .engines.breaker import BreakerOpen
from .errors import ErrorCode, JobError

T = TypeVar("T")

PASSES = {  # what a disk, a network disk or the way to it may get over
    *(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ESTALE, errno.EPIPE),
    *(errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EHOSTUNREACH),
    *(errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET),
}


class Passing(OSError):
    """A failure of the storage that may pass: asking again may help."""


class LeftAlone(OSError):
    """The storage failed too often and is not asked for `wait` seconds."""

    def __init__(self, wait: float):
        super().__init__(errno.EIO, "It failed too often and is left alone for a while")
        self.wait = wait


class Changed(Exception):
    """What was read is not what was stored. Cut on its way, it comes whole the next time."""


@dataclass(frozen=True)
class Blob:
    """A stored file as a listing tells it."""

    key: str
    bytes: int
    changed_at: datetime


class FinishedFile(File):
    """A file that the storage may move instead of copying (Django's FileSystemStorage does)."""

    def temporary_file_path(self) -> str:
        return self.file.name


def is_remote() -> bool:
    """Whether the storage is another service: S3, not a folder."""
    return not isinstance(default_storage, FileSystemStorage)


def call(do: Callable[[], T], label: str, *, check: Callable[[], None] = lambda: None, quiet: bool = True) -> T:
    """Ask the storage by `do`, up to BLOB_RETRY_ATTEMPTS times while it fails with what may pass, or with Changed.

    `check` is called before each try and while waiting; what it raises ends the wait. `label` is logged with each try
    (with the first one only unless `quiet`). Raises what the last try raised, or LeftAlone.
    """
    own = settings.JOBSITE
    ask = (lambda: _guarded(do)) if is_remote() else (lambda: _plain(do))
    try:
        return retry.call(
            ask,
            label=label,
            tries=own["BLOB_RETRY_ATTEMPTS"],
            on=(Passing, Changed),
            initial=own["RETRY_INITIAL_DELAY"],
            factor=own["RETRY_FACTOR"],
            most=own["RETRY_MAX_DELAY"],
            check=check,
            quiet=quiet,
        )
    except BreakerOpen as error:
        raise LeftAlone(error.wait) from error


def _plain(do: Callable[[], T]) -> T:
    try:
        return do()
    except OSError as error:
        if error.errno in PASSES and not isinstance(error, Passing):
            raise Passing(error.errno, os.strerror(error.errno)) from error
        raise


def _guarded(do: Callable[[], T]) -> T:
    try:
        return breaker("storage").call(lambda: _plain(do), on=(Passing,))
    except Error:  # the database cannot say how the breaker stands; asking the storage twice does no harm
        connection.close_if_unusable_or_obsolete()
        return _plain(do)


def words(error: OSError) -> str:
    """What went wrong with the storage, without paths."""
    return error.strerror or (os.strerror(error.errno) if error.errno else type(error).__name__)


def job_error(name: str, error: OSError) -> JobError:
    """The end of an attempt whose file the storage did not take or give; postponed while it is left alone."""
    return JobError(ErrorCode.storage_error, f"{name}: {words(error)}.", postpone=getattr(error, "wait", None))


def put(path: Path, key: str, *, label: str, check: Callable[[], None] = lambda: None) -> None:
    """Store a finished local file under exactly this key, in place of what is there. A local storage moves it away.

    OSError if it is not stored.
    """

    def save() -> None:
        with open(path, "rb") as local:
            if not is_remote() and default_storage.exists(key):  # an earlier try; a bucket replaces it by itself
                default_storage.delete(key)
            try:
                default_storage.save(key, FinishedFile(local, name=key))
            except FileNotFoundError as error:
                if not path.exists():
                    raise
                # The folder it goes to was empty, and whoever throws an older attempt's files away has removed it.
                raise Passing(error.errno, os.strerror(errno.ENOENT)) from error

    call(save, label, check=check, quiet=False)


def size(key: str) -> int:
    """Bytes of a stored file. FileNotFoundError, OSError."""
    return call(lambda: default_storage.size(key), f"Size of {key}")


def delete(key: str) -> None:
    """Delete a stored file; it is no error if it is gone."""
    call(lambda: default_storage.delete(key), f"Delete {key}")


def listing(folder: str) -> list[Blob]:
    """Everything that is stored below a folder, in no order."""
    return call(lambda: list(default_storage.blobs(folder) if is_remote() else _local(folder)), f"List {folder}")


def _local(folder: str) -> Iterator[Blob]:
    root = Path(default_storage.path(""))
    for here, _, names in os.walk(root / folder, onerror=_unless_gone):
        for name in names:
            path = Path(here, name)
            try:
                state = path.lstat()
            except FileNotFoundError:  # deleted meanwhile
                continue
            yield Blob(str(path.relative_to(root)), state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
