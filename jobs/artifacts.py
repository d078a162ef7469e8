"""Files of outputs and inputs in the storage. An output exists only when an Artifact row names it."""

import errno
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from . import blobs
from .blobs import words as storage_words
from .errors import ErrorCode, JobError
from .faults import fault
from .models import Artifact, Job, JobInput, Status, Upload
from .models.job import is_uuid

log = logging.getLogger(__name__)

CHUNK = 256 * 1024  # bytes: larger ones cost a third more, each in memory that is mapped anew


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


def plainly(path: str, flags: int) -> int:
    """Open a file of a work folder without following a link or waiting for a pipe: while it runs, a child that was
    taken over could have put one there (FAULTS S06)."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)


def seal(path: Path, check: Callable[[], None] = lambda: None) -> Seal:
    """Hash a finished file and wait until the disk has it: the row will say that it is there.

    `check` is called for each piece and may raise. Touches no database: it runs in a thread beside the kind.
    """
    with open(path, "rb", opener=plainly) as local:
        digest = hashlib.sha256()
        while chunk := local.read(CHUNK):
            digest.update(chunk)
            check()
        os.fsync(local.fileno())
        state = os.fstat(local.fileno())
    return Seal(state.st_size, digest.hexdigest(), state.st_mtime_ns)


def store(
    job_id: uuid.UUID, attempt: int, outputs: list[Output], check: Callable[[], None] = lambda: None
) -> list[Artifact]:
    """Put files under `jobs/<id>/<attempt>/` and return their unsaved rows. JobError(storage_error) if it fails.

    `check` is called before each try of each call, and while waiting for the next; what it raises ends the wait.
    """
    return [_store(job_id, attempt, output, check) for output in outputs]


def _store(job_id: uuid.UUID, attempt: int, output: Output, check: Callable[[], None]) -> Artifact:
    key = f"jobs/{job_id}/{attempt}/{output.name}"
    try:
        sealed = output.sealed.result()
        state = output.path.stat()
        if (state.st_size, state.st_mtime_ns) != (sealed.bytes, sealed.changed_ns):  # written to after it was named
            sealed = seal(output.path)
        blobs.put(output.path, key, label=f"Save file {output.name} for job {job_id}", check=check)
        if blobs.size(key) != sealed.bytes:  # Django's copy takes a short write for a whole one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise blobs.job_error(output.name, error) from error
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


def fetch(needed: JobInput, folder: Path, check: Callable[[], None]) -> Path:
    """Copy an input into a work folder and check it against its row's SHA-256; returns the local path.

    A copy, since a link would let a child that was taken over write to the stored file. `check` is called for each
    piece and may raise. Of the database it asks only the storage's breaker (`needed` comes with its artifact or
    upload): it runs in a thread.
    JobError(input_gone) if its row or file is no longer there or has changed, storage_error if reading fails.
    """
    source: Artifact | Upload | None = needed.artifact or needed.upload
    if source is None:
        raise JobError(ErrorCode.input_gone, f"{needed.reference} was removed.")
    target = folder / f"input-{needed.pk}"

    def copy() -> None:
        digest = hashlib.sha256()
        with default_storage.open(source.key, "rb") as stored, open(target, "wb", opener=plainly) as local:
            while chunk := stored.read(CHUNK):
                digest.update(chunk)
                local.write(chunk)
                check()
        if digest.hexdigest() != source.sha256:
            raise blobs.Changed

    try:
        blobs.call(copy, f"Download {needed.reference} for job {needed.job_id}", check=check, quiet=False)
    except FileNotFoundError as error:
        raise JobError(ErrorCode.input_gone, f"{needed.reference} is no longer stored.") from error
    except OSError as error:
        raise blobs.job_error(needed.reference, error) from error
    except blobs.Changed as error:
        changed = f"{needed.reference} was changed in the storage after it was stored."
        raise JobError(ErrorCode.input_gone, changed) from error
    return target


def fetch_key(key: str, target: Path, most: int, check: Callable[[], None]) -> Path:
    """Copy a file that is not the platform's own from the storage to `target`, which it returns.

    Whether the key may be read is the caller's affair. `check` is called for each piece and may raise.
    JobError: input_gone (it may come yet, so it is tried again), bad_input over `most` bytes, storage_error.
    """

    def copy() -> None:
        with default_storage.open(key, "rb") as stored, open(target, "wb", opener=plainly) as local:
            while chunk := stored.read(CHUNK):
                local.write(chunk)
                if local.tell() > most:
                    raise JobError(ErrorCode.bad_input, f"{key} is larger than {most} bytes.")
                check()

    try:
        blobs.call(copy, f"Download {key}", check=check, quiet=False)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise JobError(ErrorCode.input_gone, f"{key} is not in the storage.", retryable=True) from error
    except OSError as error:
        raise blobs.job_error(key, error) from error
    return target


def discard(job_id: uuid.UUID, attempt: int | None = None) -> int:
    """Delete what one attempt (or the whole job) stored, except what an Artifact row names. Returns how many files.

    The database is asked first and again for each prefix: if it cannot answer, nothing is deleted. What a storage that
    is down keeps is left to the daily sweep.
    """
    folder = f"jobs/{job_id}" + (f"/{attempt}" if attempt is not None else "")
    try:
        files = [blob.key for blob in blobs.listing(folder)]
        if not files:
            return 0
        named = set(Artifact.objects.filter(job_id=job_id).values_list("key", flat=True))
        gone = [key for key in files if key not in named]
        for key in gone:
            blobs.delete(key)
        _remove_empty_folders(folder)
    except OSError as error:
        log.warning("Job %s: its files are left to the sweep: %s", job_id, storage_words(error))
        return 0
    return len(gone)


def orphans() -> list[blobs.Blob]:
    """Stored outputs that nothing needs: no Artifact row, and no RUNNING attempt that may still publish them.

    Files are listed first and the database asked afterwards, what runs before what is published: so neither what is
    published meanwhile is in the answer, nor what is published between the two questions.
    """
    files = blobs.listing("jobs")
    found = []
    for start in range(0, len(files), 500):
        batch = files[start : start + 500]
        owners = {blob: tuple(blob.key.split("/")[1:3]) for blob in batch}
        running = {
            (str(pk), str(attempt))
            for pk, attempt in Job.objects.filter(
                pk__in={owner[0] for owner in owners.values() if is_uuid(owner[0])}, status=Status.RUNNING
            ).values_list("pk", "attempt")
        }
        named = set(Artifact.objects.filter(key__in=[blob.key for blob in batch]).values_list("key", flat=True))
        found += [blob for blob, owner in owners.items() if owner not in running and blob.key not in named]
    return found


def sweep() -> int:
    """Delete orphaned outputs. Returns how many files; stops at a storage that does not take a delete."""
    gone = 0
    for blob in orphans():
        blobs.delete(blob.key)
        log.info("Orphaned file deleted: %s", blob.key)
        _remove_empty_folders(blob.key.rpartition("/")[0])
        gone += 1
    return gone


def free_bytes() -> int:
    """Free space on the fuller disk: that of JOBSITE_HOME (database, work folders, uploads that arrive) or that of a
    local storage; 0 if one does not answer, as a mount that has gone. A bucket does not say what it has left."""
    places = [settings.HOME] if blobs.is_remote() else [settings.HOME, Path(default_storage.path(""))]
    try:  # a storage that nothing was written to yet is not there: its folder will be made
        there = [next(path for path in (place, *place.parents) if path.exists()) for place in places]
        return min(shutil.disk_usage(path).free for path in there)
    except OSError as error:
        log.error("A disk does not answer: %s", storage_words(error))
        return 0


def probe_writable() -> None:
    """Write and delete a small file. OSError if the storage refuses."""
    key = default_storage.save(f"health/{uuid.uuid4().hex}", ContentFile(b"ok"))
    default_storage.delete(key)


def _remove_empty_folders(prefix: str) -> None:
    """Local storages keep folders; remove the empty ones, from the deepest up to `jobs/`."""
    if blobs.is_remote():
        return
    folder = Path(default_storage.path(prefix))
    below = [Path(here) for here, _, _ in os.walk(folder, topdown=False)]  # one that goes meanwhile does not end it
    for path in [*below, folder.parent]:
        if path.is_dir() and path != Path(default_storage.path("jobs")) and path != Path(default_storage.path("")):
            try:
                path.rmdir()
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                    raise
