"""Large files straight into the bucket: announced, sent in parts to signed addresses, then judged and taken in."""

import hashlib
import logging
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.core.files.storage import default_storage
from django.db.models.functions import Now
from django.utils import timezone

from . import blobs, intake
from .errors import ErrorCode, Refused
from .models import PartUpload, Upload
from .models.job import uuid7
from .transactions import write
from .uploads import Judged, check_room, judged, label, storage_refuses

log = logging.getLogger(__name__)

PART = 16 * 1024**2  # bytes; S3 wants at least 5 MiB in all parts but the last
MOST_PARTS = 1000  # S3 takes 10,000
SECONDS = 3600  # that a part's address is good for
OPEN_MOST = 20  # of one user at once


@dataclass(frozen=True)
class Begun:
    """What its sender needs: cut the file into parts of `part_size` bytes, PUT the nth to the nth address."""

    upload: PartUpload
    part_size: int
    urls: list[str]
    expires_at: datetime


def begin(owner_id: int, *, name: str, size: int, sha256: str = "") -> Begun:
    """Announce a file of `size` bytes. Refused(multipart_unavailable) unless the storage is a bucket."""
    if not blobs.is_remote():
        raise Refused(ErrorCode.multipart_unavailable)
    intake.check_disk(size)
    check_room(owner_id, size)
    if PartUpload.objects.filter(owner_id=owner_id).count() >= OPEN_MOST:
        detail = f"At most {OPEN_MOST} uploads in parts may be open at once."
        raise Refused(ErrorCode.rate_limited, detail, retry_after=60.0)
    part = max(PART, -(-size // MOST_PARTS))
    sizes = [min(part, size - start) for start in range(0, size, part)]
    number = uuid7()
    key = f"uploads/{number}"
    with _or_refused():
        upload_id = blobs.call(lambda: default_storage.begin_parts(key), f"Begin upload {number}")
        urls = default_storage.part_urls(key, upload_id, sizes, seconds=SECONDS)
    upload = PartUpload.objects.create(
        id=number, owner_id=owner_id, name=label(name), key=key, upload_id=upload_id, bytes=size, sha256=sha256
    )
    return Begun(upload, part, urls, timezone.now() + timedelta(seconds=SECONDS))


def find(owner_id: int, upload_id: uuid.UUID) -> PartUpload | Upload:
    """What a user began under this id, or the upload that it became. Refused(not_found)."""
    for rows in (PartUpload.objects, Upload.objects):
        if found := rows.filter(owner_id=owner_id, pk=upload_id).first():
            return found
    raise Refused(ErrorCode.not_found)


def complete(owner_id: int, upload_id: uuid.UUID, etags: list[str]) -> Upload:
    """Put the parts together, judge the file as any upload, and take it in. Asked again, it answers the same.

    Refused: not_found; invalid_request if the parts are not those that were sent; bad_input for what no upload may be,
    also another size or SHA-256 than was announced: then nothing is kept.
    """
    begun = find(owner_id, upload_id)
    if isinstance(begun, Upload):
        return begun
    intake.check_disk(begun.bytes)
    _put_together(begun, etags)
    try:
        with _or_refused(), _copied(begun) as (path, sha256):
            if begun.sha256 and sha256 != begun.sha256:
                raise _not_as_announced("The file's SHA-256 is not the one that was announced.")
            found = judged(path)
    except Refused as refused:
        if refused.code is ErrorCode.bad_input:
            give_up(begun)
        raise
    return _taken_in(begun, sha256, found)


@write
def _taken_in(begun: PartUpload, sha256: str, found: Judged) -> Upload:
    if not PartUpload.objects.filter(pk=begun.pk).delete()[0]:  # completed twice at once, or the sweep gave it up
        if done := Upload.objects.filter(pk=begun.pk).first():
            return done
        raise Refused(ErrorCode.not_found)
    return Upload.objects.create(
        id=begun.pk,
        owner_id=begun.owner_id,
        name=begun.name,
        key=begun.key,
        bytes=begun.bytes,
        sha256=sha256,
        **found._asdict(),
    )


def _put_together(begun: PartUpload, etags: list[str]) -> None:
    """Have S3 make the object of its parts, unless an earlier try did whose answer got lost."""
    with _or_refused():
        try:
            blobs.call(
                lambda: default_storage.complete_parts(begun.key, begun.upload_id, etags), f"Complete {begun.key}"
            )
        except FileNotFoundError:
            if not blobs.call(lambda: default_storage.exists(begun.key), f"Look for {begun.key}"):
                raise Refused(ErrorCode.not_found, "This upload was given up; begin it again.") from None
        except (blobs.Passing, blobs.LeftAlone):
            raise
        except OSError as error:
            detail = "The parts are not those that were sent."
            raise Refused(ErrorCode.invalid_request, detail, fields=[("parts", "invalid", detail)]) from error


@contextmanager
def _copied(begun: PartUpload) -> Iterator[tuple[Path, str]]:
    """A local copy of the object, and its SHA-256. Refused(bad_input) if it is not as large as announced."""
    if blobs.size(begun.key) != begun.bytes:
        raise _not_as_announced(f"The file does not have the {begun.bytes} bytes that were announced.")
    with tempfile.NamedTemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR, suffix=".parts") as local:

        def copy() -> str:
            local.seek(0)
            local.truncate()
            digest = hashlib.sha256()
            with default_storage.open(begun.key, "rb") as stored:
                while chunk := stored.read(PART):
                    digest.update(chunk)
                    local.write(chunk)
            local.flush()
            return digest.hexdigest()

        sha256 = blobs.call(copy, f"Download {begun.key}")
        yield Path(local.name), sha256


def _not_as_announced(detail: str) -> Refused:
    return Refused(ErrorCode.bad_input, detail, fields=[("file", "bad_input", detail)])


@contextmanager
def _or_refused() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_refuses(error) from error


def give_up(begun: PartUpload) -> bool:
    """Throw away what came of it, unless it was completed meanwhile. What a storage that is down keeps is left to the
    sweeps of orphans and of what is unfinished."""
    if not PartUpload.objects.filter(pk=begun.pk).delete()[0]:
        return False
    try:
        blobs.call(lambda: default_storage.abort_parts(begun.key, begun.upload_id), f"Abort {begun.key}")
        blobs.delete(begun.key)
    except OSError as error:
        log.warning("%s is left to the sweep: %s", begun.key, blobs.words(error))
    return True


def sweep() -> int:
    """Give up what was begun UPLOAD_UNUSED_HOURS ago and is not complete, also what a killed worker began to store.
    Returns how many."""
    if not blobs.is_remote():
        return 0
    hours = timedelta(hours=settings.JOBSITE["UPLOAD_UNUSED_HOURS"])
    gone = sum(give_up(begun) for begun in PartUpload.objects.filter(created_at__lt=Now() - hours))
    for key, upload_id, began_at in blobs.call(default_storage.unfinished, "List uploads in parts"):
        mine = key.startswith(("jobs/", "uploads/")) and not PartUpload.objects.filter(key=key).exists()
        if mine and began_at < timezone.now() - hours:
            blobs.call(lambda key=key, upload_id=upload_id: default_storage.abort_parts(key, upload_id), f"Abort {key}")
            gone += 1
    return gone
