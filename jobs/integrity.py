"""Whether the storage still holds what the rows say: every name and size, and the content of a rotating sample."""

import hashlib
import logging
import time
from collections.abc import Iterator

from django.conf import settings
from django.core.files.storage import default_storage
from django.db.models import F
from django.db.models.functions import Now

from . import blobs
from .models import Artifact, Upload
from .models.artifact import Damage

log = logging.getLogger(__name__)

CHUNK = 1024 * 1024  # bytes
SAMPLE_MOST = 5000  # files of one sample, read as a list: SQLite takes no write beside a read that is not at its end
READ_SECONDS = 8.0  # the upkeep worker has other watchmen to run


def astray() -> Iterator[tuple[Artifact | Upload, Damage]]:
    """Outputs and uploads whose file is not stored, or is of another size than its row says.

    One listing is compared with all rows; what differs is looked at again, as rows and files come and go meanwhile.
    """
    for rows, folder in ((Artifact.objects, "jobs"), (Upload.objects, "uploads")):
        stored = {blob.key: blob.bytes for blob in blobs.listing(folder)}
        for row in rows.order_by("pk").iterator(chunk_size=2000):
            if stored.get(row.key) != row.bytes and (damage := _damage(row)) and rows.filter(pk=row.pk).exists():
                yield row, damage


def _damage(row: Artifact | Upload) -> Damage | None:
    try:
        return None if blobs.size(row.key) == row.bytes else Damage.SIZE
    except FileNotFoundError:
        return Damage.GONE


def check() -> int:
    """Mark and log outputs that are not what their rows say. Returns how many were found to be damaged now.

    Of every output the name and the size are looked at; of STORAGE_CHECK_BYTES of them, those that were read longest
    ago, the content, but not of one that is larger: none behind it would be read. What is whole again loses its mark.
    """
    found = {row.pk: (row, damage) for row, damage in astray() if isinstance(row, Artifact)}
    Artifact.objects.filter(damage__in=[Damage.GONE, Damage.SIZE]).exclude(pk__in=found).update(damage=None)
    for row, damage in found.values():
        _mark(row, damage)
    return len(found) + _read_sample(settings.JOBSITE["STORAGE_CHECK_BYTES"])


def _read_sample(most: int) -> int:
    until = time.monotonic() + READ_SECONDS
    damaged = 0
    fitting = Artifact.objects.filter(bytes__lte=most).exclude(damage__in=[Damage.GONE, Damage.SIZE])
    for row in list(fitting.order_by(F("checked_at").asc(nulls_first=True), "pk")[:SAMPLE_MOST]):
        if row.bytes > most or time.monotonic() > until:
            break
        most -= row.bytes
        try:
            whole = _sha256(row.key) == row.sha256
        except FileNotFoundError:  # its job was deleted meanwhile
            continue
        Artifact.objects.filter(pk=row.pk).update(checked_at=Now())
        if whole:
            Artifact.objects.filter(pk=row.pk, damage=Damage.CONTENT).update(damage=None)
        else:
            damaged += 1
            _mark(row, Damage.CONTENT)
    return damaged


def _sha256(key: str) -> str:
    def read() -> str:
        digest = hashlib.sha256()
        with default_storage.open(key, "rb") as stored:
            while chunk := stored.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    return blobs.call(read, f"Read {key}")


def _mark(row: Artifact, damage: Damage) -> None:
    log.error("Output %s of job %s is %s", row.name, row.job_id, damage.label)
    Artifact.objects.filter(pk=row.pk).update(damage=damage)
