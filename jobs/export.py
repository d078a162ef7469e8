"""Jobs and ledger lines as CSV or JSON, row by row: whoever leaves takes everything along."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import QuerySet

from tokens.models import Transaction

from .models import Job

BATCH = 1000  # rows of one statement: each batch is read anew behind the last row, so no connection is held between
FORMATS = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run (OWASP, CSV injection)

JOB_FIELDS = [
    "id", "owner", "kind", "tier", "queue", "priority", "status", "stage", "progress", "attempt", "round", "failures",
    "max_attempts", "price", "error_code", "error_message", "created_at", "started_at", "finished_at", "params",
    "metadata",
]  # fmt: skip
LINE_FIELDS = ["id", "owner", "kind", "amount", "balance_after", "reference", "reason", "reverses", "created_at"]


def jobs(rows: QuerySet[Job], form: str) -> Iterator[str]:
    """The text of these jobs, in pieces, newest first."""
    return _written(_job_rows(rows.select_related("owner")), JOB_FIELDS, form)


def ledger(rows: QuerySet[Transaction], form: str) -> Iterator[str]:
    """The text of these bookings, in pieces, newest first."""
    return _written(_line_rows(rows.select_related("account__user")), LINE_FIELDS, form)


def _job_rows(rows: QuerySet[Job]) -> Iterator[list]:
    plain = [name for name in JOB_FIELDS if name not in ("id", "owner")]
    for job in _all(rows):
        yield [str(job.pk), job.owner.get_username(), *(getattr(job, name) for name in plain)]


def _line_rows(rows: QuerySet[Transaction]) -> Iterator[list]:
    for line in _all(rows):
        yield [
            line.pk,
            line.account.user.get_username(),
            *(getattr(line, name) for name in LINE_FIELDS[2:7]),
            line.reverses_id,
            line.created_at,
        ]


def _all(rows: QuerySet) -> Iterator[Any]:
    rows, last = rows.order_by("-pk"), None
    while batch := list((rows if last is None else rows.filter(pk__lt=last))[:BATCH]):
        yield from batch
        last = batch[-1].pk


def _written(rows: Iterable[list], names: list[str], form: str) -> Iterator[str]:
    if form == "csv":
        yield _line(names)
        for row in rows:
            yield _line([_cell(value) for value in row])
    else:
        mark = "["
        for row in rows:
            yield f"{mark}\n{json.dumps(dict(zip(names, row, strict=True)), cls=DjangoJSONEncoder, ensure_ascii=False)}"
            mark = ","
        yield "\n]\n" if mark == "," else "[]\n"


def _line(cells: list) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula; numbers stay numbers, times are ISO 8601."""
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, (dict, list)):
        value = json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False)
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
