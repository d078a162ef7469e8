"""Writing a job's events. Bare SQL where every job pays for it: an ORM INSERT costs three times as much CPU."""

import json
import uuid
from typing import Any

from django.db import connection
from django.db.models import F, JSONField, TextField, Value
from django.db.models.expressions import RawSQL

from .models import Job, Status
from .transactions import again_if_busy, write

NOW = {"postgresql": "STATEMENT_TIMESTAMP()", "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW')"}
INSERT = "INSERT INTO jobs_jobevent (job_id, round, attempt, status, code, message, by, tokens, stages)"
MOVE_AND_TELL = f"""
WITH moved AS ({{update}}), told AS ({INSERT} SELECT id, round, attempt, %s, '', '', %s, 0, %s::jsonb FROM moved)
SELECT * FROM moved"""  # noqa: S608 - made of our own constants

EVENT_VALUES = "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"

Stages = list[tuple[str, float]]  # of one attempt, in order: name and seconds


def stored_id(job_id: uuid.UUID) -> uuid.UUID | str:
    """A job's id as bare SQL passes it to the database in use."""
    return job_id if connection.features.has_native_uuid_field else job_id.hex


def among(ids: list[uuid.UUID]) -> list[uuid.UUID] | RawSQL:
    """What `pk__in` takes for many jobs: one parameter on PostgreSQL, since 500 cost as much CPU as the query."""
    if connection.vendor != "postgresql":
        return ids
    return RawSQL("SELECT unnest(%s::uuid[])", [ids])


def tell(
    job_id: uuid.UUID,
    number: int,
    attempt: int,
    to: Status,
    *,
    by: str,
    message: str = "",
    tokens: int = 0,
    stages: Stages | None = None,
) -> None:
    """Write one event of a job's round `number`; `tokens` is what the owner's balance moved by with it."""
    with connection.cursor() as cursor:
        values = [stored_id(job_id), number, attempt, to.value, "", message, by, tokens, stages and json.dumps(stages)]
        cursor.execute(f"{INSERT} {EVENT_VALUES}", values)


def tell_all(
    ids: list[uuid.UUID],
    *,
    by: str,
    tokens: F | Value = Value(0),  # noqa: B008 - a constant
    stages: Stages | None = None,
) -> None:
    """Write one event for each of the jobs as its row stands now, in one statement; `tokens`: what went back."""
    told = Job.objects.filter(pk__in=among(ids)).values_list(
        "pk",
        "round",
        "attempt",
        "status",
        "error_code",
        "error_message",
        Value(by),
        tokens,
        Value(stages, JSONField()) if stages else Value(None, TextField()),
    )
    select, params = told.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(f"{INSERT} {select}", params)


def move(update: str, params: list[Any], to: Status, *, by: str, stages: Stages | None = None) -> list[tuple]:
    """Run an UPDATE of jobs that RETURNS (id, round, attempt, …), and tell what it moved. Returns its rows.

    One statement on PostgreSQL: no BEGIN, no COMMIT, one round trip instead of four. SQLite takes no UPDATE inside a
    WITH; its transaction costs no round trips.
    """
    move_it = _move_and_tell if connection.vendor == "postgresql" else _move_then_tell
    return move_it(update, params, to, by=by, stages=stages)


@again_if_busy
def _move_and_tell(update: str, params: list[Any], to: Status, *, by: str, stages: Stages | None) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(MOVE_AND_TELL.format(update=update), [*params, to.value, by, stages and json.dumps(stages)])
        return cursor.fetchall()


@write
def _move_then_tell(update: str, params: list[Any], to: Status, *, by: str, stages: Stages | None) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(update, params)
        moved = cursor.fetchall()
    for job_id, number, attempt, *_ in moved:
        tell(uuid.UUID(job_id), number, attempt, to, by=by, stages=stages)
    return moved
