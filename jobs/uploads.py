"""Files that users bring: taken in, and swept when nothing uses them."""

import errno
import hashlib
import logging
import os
import shutil
import threading
import time
import unicodedata
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.db import Error, IntegrityError, connection, transaction
from django.db.models import Exists, OuterRef, QuerySet, Sum
from django.db.models.functions import Now
from django.utils import timezone

from . import blobs, idempotency
from .engines import delimited, media
from .errors import ErrorCode, JobError, Refused
from .models import LIVE, IdempotencyKey, JobInput, PartUpload, Upload
from .models.job import uuid7
from .transactions import write

log = logging.getLogger(__name__)

NAME_LONGEST = 200  # characters
ORPHAN_AGE = timedelta(hours=1)  # a file without a row that is older belongs to nobody
_probing = threading.BoundedSemaphore(2)  # media readers at once in one web process: each may take much memory


def take_in(owner_id: int, *, path: Path, sha256: str, name: str, key: str | None = None) -> Upload:
    """Keep a finished local file as the user's upload; the storage may move it away.

    Its type is judged from its bytes; of media, the streams are read behind the walls. Refused(bad_input) for an empty
    file, an unknown type, a video without pictures, a table with NULs or what breaks a cap; nothing is kept then.
    A film that is cut short is kept as such: STITCH names it.
    Who comes again with the same `key` (Idempotency-Key) gets the upload that it made, and no other.
    """
    if key and (before := made_by(owner_id, key, sha256)):
        return before
    size = path.stat().st_size
    check_room(owner_id, size)
    found = judged(path)
    number = uuid7()
    about = {"name": label(name), "bytes": size, "sha256": sha256, **found._asdict()}
    upload = Upload(id=number, owner_id=owner_id, key=f"uploads/{number}", **about)
    try:
        with open(path, "rb") as written:
            os.fsync(written.fileno())  # the row will say that it is there
        blobs.put(path, upload.key, label=f"Save file {upload.name} for upload {number}")
        if blobs.size(upload.key) != size:
            blobs.delete(upload.key)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise storage_refuses(error) from error
    try:
        _keep(upload, key)
    except Error:  # in doubt: the commit may have been done. If nobody can say, the sweep finds the file later
        connection.close_if_unusable_or_obsolete()
        if not Upload.objects.filter(pk=upload.pk).exists():
            _delete(upload.key)
            if key and (before := made_by(owner_id, key, sha256)):  # it came twice at once
                return before
            raise
    return upload


def check_room(owner_id: int, size: int) -> None:
    """Refused(too_many_uploads) if with `size` bytes more the user's uploads that no job uses would take more than
    UPLOADS_UNUSED_BYTES: no one account fills the disk for all. A brake, no lock: many at once may pass together."""
    taken = sum(
        rows.filter(owner_id=owner_id).aggregate(sum=Sum("bytes"))["sum"] or 0
        for rows in (_unused(), PartUpload.objects.all())
    )
    if taken + size > settings.JOBSITE["UPLOADS_UNUSED_BYTES"]:
        raise Refused(ErrorCode.too_many_uploads)


def _unused() -> QuerySet[Upload]:
    return Upload.objects.filter(~Exists(JobInput.objects.filter(upload=OuterRef("pk"))))


def take_copy(owner_id: int, path: Path) -> Upload:
    """Keep a copy of a local file of the platform's own as the user's upload."""
    copy = Path(settings.FILE_UPLOAD_TEMP_DIR) / f"copy-{uuid7().hex}"
    shutil.copyfile(path, copy)
    try:
        return take_in(owner_id, path=copy, sha256=hashlib.sha256(copy.read_bytes()).hexdigest(), name=path.name)
    finally:
        copy.unlink(missing_ok=True)


@write
def _keep(upload: Upload, key: str | None) -> None:
    upload.save(force_insert=True)
    if key:
        IdempotencyKey.objects.create(owner_id=upload.owner_id, key=key, body_hash=upload.sha256, job_id=upload.pk)


def made_by(owner_id: int, key: str, sha256: str) -> Upload | None:
    """The upload that this key made, if any. Refused if it came with another file, or the upload was removed since."""
    gone = "The upload that this Idempotency-Key made was removed."
    return idempotency.made_by(Upload, owner_id, key, sha256, gone=gone)


def storage_refuses(error: OSError) -> Refused:
    """What a user is told when the storage does not take or give a file."""
    log.warning("The storage refuses: %s", blobs.words(error))
    return Refused(ErrorCode.storage_full, retry_after=getattr(error, "wait", 60.0))


class Judged(NamedTuple):
    """What an upload's bytes say of it."""

    content_type: str
    cut: bool = False


def judged(path: Path) -> Judged:
    """What a local file is, from its bytes. Refused(bad_input) unless a kind can read it."""
    found = _judged(path) if path.stat().st_size else None
    if found is None:
        known = "is not a video, picture, sound or table (CSV) that can be read here."
        raise _bad(f"The file {known if path.stat().st_size else 'is empty.'}")
    return found


def _judged(path: Path) -> Judged | None:
    content_type = media.sniff(path)
    with _probing:
        try:
            if content_type is None:
                delimited.look(path)
                return Judged("text/csv")
            found = media.probe(path, label="The file")
        except delimited.NoTable:
            return None
        except JobError as error:
            if error.code is not ErrorCode.bad_input:
                raise
            raise _bad(error.message) from error
    if content_type.startswith("video/") and not (found.video and found.video.frames):
        raise _bad("The file has no video stream with pictures.")
    return Judged(content_type, found.cut)


def _bad(detail: str) -> Refused:
    return Refused(ErrorCode.bad_input, detail, fields=[("file", "bad_input", detail)])


def label(name: str) -> str:
    """What a user called a file, as text to show: no folders, no control or direction characters, 200 characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    plain = "".join(char for char in last if unicodedata.category(char)[0] != "C")
    return plain.strip()[:NAME_LONGEST] or "upload"


def remove(upload: Upload) -> None:
    """Delete an upload, row first. Refused(upload_in_use) while a live job needs it."""
    try:
        _remove(upload)
    except IntegrityError as error:  # a job that needs it was submitted at the same time
        raise Refused(ErrorCode.upload_in_use) from error


@write
def _remove(upload: Upload) -> None:
    Upload.objects.select_for_update().filter(pk=upload.pk).first()  # a submit that needs it waits here, or we for it
    if JobInput.objects.filter(upload_id=upload.pk, job__status__in=LIVE).exists():
        raise Refused(ErrorCode.upload_in_use)
    IdempotencyKey.objects.filter(job_id=upload.pk).update(job_deleted_at=Now())
    Upload.objects.filter(pk=upload.pk).delete()
    transaction.on_commit(lambda: _delete(upload.key), robust=True)


def _delete(key: str) -> None:
    try:
        blobs.delete(key)
    except OSError as error:
        log.warning("%s is left to the sweep: %s", key, blobs.words(error))


def sweep_unused() -> int:
    """Delete uploads older than UPLOAD_UNUSED_HOURS that no job uses, files without a row, and temporary files of
    uploads that were broken off. Returns how many."""
    old = Now() - timedelta(hours=settings.JOBSITE["UPLOAD_UNUSED_HOURS"])
    gone = 0
    for upload in _unused().filter(created_at__lt=old):
        try:
            remove(upload)
        except Refused:  # a job took it meanwhile
            continue
        gone += 1
    return gone + sweep_orphans() + _sweep_temporary()


def sweep_orphans() -> int:
    """Delete stored uploads without a row. Returns how many."""
    gone = orphans()
    for blob in gone:
        blobs.delete(blob.key)
    return len(gone)


def orphans() -> list[blobs.Blob]:
    """Stored uploads without a row that are older than an hour: younger ones may still get theirs."""
    old = timezone.now() - ORPHAN_AGE
    files = [blob for blob in blobs.listing("uploads") if blob.changed_at < old]
    found = []
    for start in range(0, len(files), 500):
        batch = files[start : start + 500]
        keys = [blob.key for blob in batch]
        known = {*Upload.objects.filter(key__in=keys).values_list("key", flat=True)}
        known |= {*PartUpload.objects.filter(key__in=keys).values_list("key", flat=True)}
        found += [blob for blob in batch if blob.key not in known]
    return found


def _sweep_temporary() -> int:
    gone = 0
    for path in Path(settings.FILE_UPLOAD_TEMP_DIR).iterdir():
        try:
            if time.time() - path.stat(follow_symlinks=False).st_mtime > 86_400:
                shutil.rmtree(path) if path.is_dir() else path.unlink()  # media.shown makes folders
                gone += 1
        except FileNotFoundError:  # its upload ended meanwhile
            continue
    return gone
