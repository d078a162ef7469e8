"""Jobs of the Studio that Jobsite replaces, read from its SQLite database. Only rows are read, no file is touched."""

import hashlib
import json
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.db import DataError

from . import kinds, lifecycle
from .errors import ErrorCode
from .models import FINAL, Job, Status
from .models.job import is_uuid


@dataclass
class Report:
    """What an import did; `skipped` are (the Studio's job id, why)."""

    imported: int = 0
    known: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)


class NotAStudio(Exception):
    """The file is no SQLite database with the Studio's `jobs` table."""


def studio_id(job_id: str) -> uuid.UUID:
    """Our id for a job id of the caller's: itself if it is one of ours, else the one that an import gives it.

    A UUIDv7 of the year 1970, so that imported jobs are listed after all others, whatever the Studio called them.
    """
    if is_uuid(job_id) and uuid.UUID(job_id).version == 7:
        return uuid.UUID(job_id)
    digest = int.from_bytes(hashlib.sha256(b"studio:" + job_id.encode()).digest()[:16])
    low = digest & (2**62 - 1)
    return uuid.UUID(int=7 << 76 | (digest >> 116) << 64 | 0b10 << 62 | low)


def studio_words(job: Job) -> dict[str, Any]:
    """What an imported job keeps of the Studio's own; nothing of any other, whose owner may have written anything."""
    words = job.metadata.get("studio")
    named = isinstance(words, dict) and isinstance(words.get("job_id"), str)
    return words if named and studio_id(words["job_id"]) == job.pk else {}  # nobody knows the id of a job to be sold


def import_studio(path: Path, owner_id: int) -> Report:
    """Take over the ended jobs of a Studio's database as `owner_id`'s. Repeating it takes only what is new.

    They cost nothing and keep their links in `metadata.studio`. A job that had not ended, is of a kind that is not
    installed or cannot be read is skipped and told. NotAStudio if the file is no such database.
    """
    report = Report()
    for row in _rows(path):
        name = str(row.get("job_id"))
        try:
            new = lifecycle.adopt(_job(row, name, owner_id), by="import")
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError, DataError) as wrong:
            report.skipped.append((name, str(wrong).partition("\n")[0]))
            continue
        if new:
            report.imported += 1
        else:
            report.known += 1
    return report


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as studio:
            studio.row_factory = sqlite3.Row
            studio.text_factory = lambda raw: raw.decode(errors="replace")  # a broken text is its own row's alone
            for row in studio.execute("SELECT * FROM jobs ORDER BY created_at"):
                yield dict(row)
    except sqlite3.Error as wrong:
        raise NotAStudio(f"{path.name} cannot be read as a Studio's database: {wrong}") from wrong


def _job(row: dict[str, Any], name: str, owner_id: int) -> Job:
    """The row as an unsaved job. ValueError says why it cannot be taken over."""
    if row["status"] not in FINAL:
        raise ValueError(f"it is {row['status']}: let it end there first, then import again")
    if row["type"] not in kinds.names():
        raise ValueError(f"there is no kind {row['type']} here")
    kind = kinds.get(row["type"])
    params = json.loads(row.get("params") or "{}")
    links = json.loads(row.get("output_urls") or "[]")
    if not isinstance(params, dict) or not isinstance(links, list):
        raise ValueError("its params or output_urls are not what the Studio writes")
    json.dumps([params, links], ensure_ascii=False, allow_nan=False).encode()  # what no answer could hold is no job's
    created = _time(row["created_at"])
    code = {Status.FAILED: row.get("error_code") or ErrorCode.internal_error.name, Status.CANCELED: "user_canceled"}
    return Job(
        id=studio_id(name),
        owner_id=owner_id,
        kind=kind.name,
        queue=kind.queue,
        params=params,
        metadata={"studio": {"job_id": name, "output_urls": links}},
        status=row["status"],
        max_attempts=1,
        run_limit=kind.limits.run,
        stall_limit=kind.limits.stall,
        price=0,
        created_at=created,
        run_after=None,
        finished_at=max(created, _time(row.get("updated_at") or row["created_at"])),
        progress=1.0 if row["status"] == Status.SUCCEEDED else 0.0,
        stage="imported",
        error_code=code.get(row["status"], "")[:40],
        error_message=(row.get("error_message") or "")[:1000] if row["status"] != Status.SUCCEEDED else "",
    )


def _time(text: str) -> datetime:
    """SQLite's and ISO's times; without a zone they are UTC."""
    time = datetime.fromisoformat(str(text))
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
