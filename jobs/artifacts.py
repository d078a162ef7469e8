"""Files of outputs and uploads, over Django's storage API. An output exists only when an Artifact row names it."""

import errno
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from .errors import ErrorCode, JobError
from .faults import fault
from .models import Artifact, Job, JobInput, Status, Upload
from .models.job import is_uuid

log = logging.getLogger(__name__)

CHUNK = 256 * 1024  # bytes: larger ones cost a third more, each in memory that is mapped anew


class FinishedFile(File):
    """A file that the storage may move instead of copying (Django's FileSystemStorage does)."""

    def temporary_file_path(self) -> str:
        return self.file.name


@dataclass(frozen=True)
class Seal:
    """What a finished file was when it was read whole: the row's figures, and the time of its last change."""

    bytes: int
    sha256: str
    changed_ns: int


@dataclass(frozen=True)
class Output:
    """What a kind named: a finished local file, to be published under `name`. `sealed` is `seal` of it, under way."""

    path: Path
    name: str
    content_type: str
    sealed: Future[Seal]


def seal(path: Path, check: Callable[[], None] = lambda: None) -> Seal:
    """Hash a finished file and wait until the disk has it: the row will say that it is there.

    `check` is called for each piece and may raise. Touches no database: it runs in a thread beside the kind.
    """
    with open(path, "rb") as local:
        digest = hashlib.sha256()
        while chunk := local.read(CHUNK):
            digest.update(chunk)
            check()
        os.fsync(local.fileno())
        state = os.fstat(local.fileno())
    return Seal(state.st_size, digest.hexdigest(), state.st_mtime_ns)


def store(job_id: uuid.UUID, attempt: int, outputs: list[Output]) -> list[Artifact]:
    """Put files under `jobs/<id>/<attempt>/` and return their unsaved rows. JobError(storage_error) if it fails."""
    return [_store(job_id, attempt, output) for output in outputs]


def _store(job_id: uuid.UUID, attempt: int, output: Output) -> Artifact:
    key = f"jobs/{job_id}/{attempt}/{output.name}"
    try:
        sealed = output.sealed.result()
        with open(output.path, "rb") as local:
            state = os.fstat(local.fileno())
            if (state.st_size, state.st_mtime_ns) != (sealed.bytes, sealed.changed_ns):  # written to after it was named
                sealed = seal(output.path)
            if default_storage.exists(key):  # an earlier try of this same attempt
                default_storage.delete(key)
            default_storage.save(key, FinishedFile(local, name=key))
            if default_storage.size(key) != sealed.bytes:  # Django's copy takes a short write for a whole one
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise JobError(ErrorCode.storage_error, f"{output.name}: {storage_words(error)}") from error
    fault("publish.stored")
    return Artifact(
        job_id=job_id,
        attempt=attempt,
        name=output.name,
        key=key,
        bytes=sealed.bytes,
        sha256=sealed.sha256,
        content_type=output.content_type,
    )


def storage_words(error: OSError) -> str:
    """What went wrong with the storage, without paths."""
    return os.strerror(error.errno) if error.errno else type(error).__name__


def fetch(needed: JobInput, folder: Path, check: Callable[[], None]) -> Path:
    """Copy an input into a work folder and check it against its row's SHA-256; returns the local path.

    A copy, since a link would let a child that was taken over write to the stored file. `check` is called for each
    piece and may raise. Touches no database (`needed` comes with its artifact or upload): it runs in a thread.
    JobError(input_gone) if its row or file is no longer there or has changed, storage_error if reading fails.
    """
    source: Artifact | Upload | None = needed.artifact or needed.upload
    if source is None:
        raise JobError(ErrorCode.input_gone, f"{needed.reference} was removed.")
    target = folder / f"input-{needed.pk}"
    digest = hashlib.sha256()
    try:
        with default_storage.open(source.key, "rb") as stored, open(target, "wb") as local:
            while chunk := stored.read(CHUNK):
                digest.update(chunk)
                local.write(chunk)
                check()
    except FileNotFoundError as error:
        raise JobError(ErrorCode.input_gone, f"{needed.reference} is no longer stored.") from error
    except OSError as error:
        raise JobError(ErrorCode.storage_error, f"{needed.reference}: {storage_words(error)}") from error
    if digest.hexdigest() != source.sha256:
        raise JobError(ErrorCode.input_gone, f"{needed.reference} was changed in the storage after it was stored.")
    return target


def fetch_key(key: str, target: Path, most: int, check: Callable[[], None]) -> Path:
    """Copy a file that is not the platform's own from the storage to `target`, which it returns.

    Whether the key may be read is the caller's affair. `check` is called for each piece and may raise.
    JobError: input_gone (it may come yet, so it is tried again), bad_input over `most` bytes, storage_error.
    """
    try:
        with default_storage.open(key, "rb") as stored, open(target, "wb") as local:
            while chunk := stored.read(CHUNK):
                local.write(chunk)
                if local.tell() > most:
                    raise JobError(ErrorCode.bad_input, f"{key} is larger than {most} bytes.")
                check()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise JobError(ErrorCode.input_gone, f"{key} is not in the storage.", retryable=True) from error
    except OSError as error:
        raise JobError(ErrorCode.storage_error, f"{key}: {storage_words(error)}") from error
    return target


def discard(job_id: uuid.UUID, attempt: int | None = None) -> int:
    """Delete what one attempt (or the whole job) stored, except what an Artifact row names. Returns how many files.

    The database is asked first and again for each prefix: if it cannot answer, nothing is deleted.
    """
    prefix = f"jobs/{job_id}" + (f"/{attempt}" if attempt is not None else "")
    files = list(_files(prefix))
    if not files:
        return 0
    named = set(Artifact.objects.filter(job_id=job_id).values_list("key", flat=True))
    gone = [key for key in files if key not in named]
    for key in gone:
        default_storage.delete(key)
    _remove_empty_folders(prefix)
    return len(gone)


def orphans() -> list[str]:
    """Keys of stored outputs that nothing needs: no Artifact row, and no RUNNING attempt that may still publish them.

    Files are listed first and the database asked afterwards, so what is published meanwhile is not in the answer.
    """
    files = list(_files("jobs"))
    found = []
    for start in range(0, len(files), 500):
        batch = files[start : start + 500]
        named = set(Artifact.objects.filter(key__in=batch).values_list("key", flat=True))
        owners = {key: key.split("/")[1:3] for key in batch if key not in named}
        running = {
            (str(pk), str(attempt))
            for pk, attempt in Job.objects.filter(
                pk__in=[job_id for job_id, _ in owners.values() if is_uuid(job_id)], status=Status.RUNNING
            ).values_list("pk", "attempt")
        }
        found += [key for key, owner in owners.items() if tuple(owner) not in running]
    return found


def sweep() -> int:
    """Delete orphaned outputs. Returns how many files."""
    gone = orphans()
    for key in gone:
        default_storage.delete(key)
        log.info("Orphaned file deleted: %s", key)
        _remove_empty_folders(key.rpartition("/")[0])
    return len(gone)


def free_bytes() -> int | None:
    """Free space of a local storage, None where the storage does not say."""
    try:
        return shutil.disk_usage(default_storage.path("")).free
    except NotImplementedError:
        return None
    except FileNotFoundError:
        return shutil.disk_usage(Path(default_storage.path("")).parent).free


def probe_writable() -> None:
    """Write and delete a small file. OSError if the storage refuses."""
    key = default_storage.save(f"health/{uuid.uuid4().hex}", ContentFile(b"ok"))
    default_storage.delete(key)


def _files(prefix: str) -> Iterator[str]:
    try:
        folders, files = default_storage.listdir(prefix)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in files:
        yield f"{prefix}/{name}"
    for folder in folders:
        yield from _files(f"{prefix}/{folder}")


def _remove_empty_folders(prefix: str) -> None:
    """Local storages keep folders; remove the empty ones, from the deepest up to `jobs/`."""
    try:
        folder = Path(default_storage.path(prefix))
    except NotImplementedError:
        return
    for path in [*sorted(folder.rglob("*"), reverse=True), folder, folder.parent]:
        if path.is_dir() and path != Path(default_storage.path("jobs")) and path != Path(default_storage.path("")):
            try:
                path.rmdir()
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                    raise
