"""Searching jobs in one line, the same in the admin, the API and commands.

    kind:RENDER status:FAILED code:worker_timeout user:ann id:0198c2f1 meta.shop.order:"A 17"

Qualifiers narrow (all must hold); one twice means either. A bare word is an id, an id's first 8 or more characters, or
a part of an owner's name.
"""

import json
import re
import uuid
from collections.abc import Mapping

from django.contrib.auth import get_user_model
from django.db.models import Func, Q, QuerySet, TextField
from django.db.models.functions import Cast

from . import kinds
from .errors import ErrorCode, Refused
from .models import FINAL, Job, Status

HELP = (
    "kind: status: code: user: id: queue: meta.x: (quoted if with spaces), a job's id or its beginning, an owner's name"
)
LONGEST = 500  # characters of a line: each word of it is a condition, or a look-up of its own
OWNERS = 100  # users that one word may name
LOOKED_AT = 50_000  # the newest jobs that are looked through where no index helps; metadata is dearer to read:
META_LOOKED_AT = 20_000
WORD = re.compile(r'(?:([a-z]+)((?:\.[^\s:.]+)*):)?(?:"([^"]*)"|(\S+))')


def search(jobs: QuerySet[Job], text: str, *, among: QuerySet[Job] | None = None) -> QuerySet[Job]:
    """Those of `jobs` that the line `text` asks for. Refused(invalid_request) if it cannot be understood.

    Metadata is looked for in the newest jobs: of `among`, else of the platform.
    """
    if len(text) > LONGEST:
        raise _refused(f"A search may have {LONGEST} characters.")
    wanted: dict[tuple[str, str], list[str]] = {}
    for name, path, quoted, plain in WORD.findall(text.replace("\0", "")):
        wanted.setdefault((name, path.removeprefix(".")), []).append(quoted or plain)
    for (name, path), values in wanted.items():
        if (name == "meta") != bool(path) or name not in ("", *QUALIFIERS):
            raise _refused(f"There is no qualifier {name}{'.' + path if path else ''}: — {HELP}.")
        jobs = _meta(jobs, path, values, among) if name == "meta" else jobs.filter(QUALIFIERS[name](values))
    return jobs


def search_in(jobs: QuerySet[Job], text: str, *, among: QuerySet[Job]) -> QuerySet[Job]:
    """`search` for who may see the jobs of `among`: what no index holds is looked for in the newest of those."""
    if needs_bound({"q": text}):
        jobs = newest(jobs, LOOKED_AT, among=among)
    return search(jobs, text, among=among)


def needs_bound(chosen: Mapping[str, str]) -> bool:
    """Whether a list with these filters (`status`, `kind`, `queue`, `error_code`, `q`) would look through whole tables:
    whether rows are to be found by what no index holds. The time of the end, kind and code of ended jobs are in one."""
    text = chosen.get("q", "")
    if re.search(r"\b(user|id):", text) or (text and ":" not in text):
        return False
    named = {
        name
        for name in ("kind", "queue", "error_code")
        if chosen.get(name) or f"{name.removeprefix('error_')}:" in text
    }
    status = chosen.get("status") or next(iter(re.findall(r"\bstatus:(\w+)", text)), "")
    return bool(named) and (not status or (status.upper() in FINAL and "queue" in named))


def newest(jobs: QuerySet[Job], most: int, *, among: QuerySet[Job] | None = None) -> QuerySet[Job]:
    """Only the newest `most` jobs of `among`, else of the platform: a bound for what no index answers."""
    oldest = (
        (Job.objects.all() if among is None else among)
        .order_by("-id")
        .values_list("pk", flat=True)[most : most + 1]
        .first()
    )
    return jobs if oldest is None else jobs.filter(pk__gt=oldest)


def _one_of(field: str, known) -> object:
    def condition(values: list[str]) -> Q:
        right = [next((name for name in known() if name.lower() == value.lower()), None) for value in values]
        if None in right:
            raise _refused(f"{values[right.index(None)]} is none of: {', '.join(known())}.")
        return Q(**{f"{field}__in": right})

    return condition


def _ids(values: list[str]) -> Q:
    found = [_id(value) for value in values]
    if None in found:
        raise _refused("An id has 8 to 32 digits of 0 to 9 and a to f.")
    return _either(Q(pk__range=both) for both in found)


def _id(value: str) -> tuple[uuid.UUID, uuid.UUID] | None:
    """The first and last id that begin so: a range, which the index answers."""
    digits = value.replace("-", "").lower()
    if not (8 <= len(digits) <= 32 and set(digits) <= set("0123456789abcdef")):
        return None
    return uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f"))


def _users(values: list[str]) -> Q:
    """By name or by number, whole."""
    users = get_user_model().objects
    numbers = [int(value) for value in values if value.isdecimal() and len(value) < 18]
    named = users.filter(Q(username__in=values) | Q(pk__in=numbers))
    return Q(owner_id__in=list(named.values_list("pk", flat=True)[:OWNERS]))


def _words(values: list[str]) -> Q:
    """Each bare word must fit: as an id, or as a part of the owner's name."""
    wanted = Q()
    for value in values:
        users = get_user_model().objects.filter(username__icontains=value).order_by("pk")
        fits = Q(owner_id__in=list(users.values_list("pk", flat=True)[:OWNERS]))
        if both := _id(value):
            fits |= Q(pk__range=both)
        wanted &= fits
    return wanted


def _meta(jobs: QuerySet[Job], path: str, values: list[str], among: QuerySet[Job] | None) -> QuerySet[Job]:
    """By a value of the owner's metadata, as text; no index knows it, so among the newest jobs."""
    told = Cast(_At("metadata", path.split(".")), TextField())
    return newest(jobs, META_LOOKED_AT, among=among).alias(told=told).filter(told__in=values)


class _At(Func):
    """The value under these names in a JSON column, as text. Not Django's own: that takes each name that reads as a
    number for a place in a list, which the outermost is never, and databases refuse places like -1 or 99999999999."""

    output_field = TextField()

    def __init__(self, column: str, names: list[str]):
        super().__init__(column)
        self.names = names

    def as_postgresql(self, compiler, connection, **context):
        column, params = compiler.compile(self.source_expressions[0])
        return f"({column} #>> %s)", [*params, self.names]

    def as_sqlite(self, compiler, connection, **context):
        column, params = compiler.compile(self.source_expressions[0])
        path = "$"
        for name in self.names:
            place = path != "$" and re.fullmatch("[0-9]{1,9}", name)
            path += f"[{name}]" if place else f".{json.dumps(name)}"
        kind = f"JSON_TYPE({column}, %s)"
        sql = f"CASE WHEN {kind} IN ('false', 'true') THEN {kind} ELSE JSON_EXTRACT({column}, %s) END"
        return sql, [*params, path] * 3


def _either(conditions) -> Q:
    found = Q(pk__in=[])
    for condition in conditions:
        found |= condition
    return found


def _refused(detail: str) -> Refused:
    return Refused(ErrorCode.invalid_request, detail, fields=[("search", "invalid", detail)])


QUALIFIERS = {
    "": _words,
    "kind": _one_of("kind", kinds.names),
    "status": _one_of("status", lambda: Status.values),
    "code": _one_of("error_code", lambda: [code.name for code in ErrorCode]),
    "queue": lambda values: Q(queue__in=values),
    "user": _users,
    "id": _ids,
    "meta": None,  # see _meta
}
