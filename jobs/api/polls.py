"""Polls that find nothing new, at a fraction of an answer's price: a job's tag, and 304 before Django begins."""

import hashlib
import re
import uuid
from datetime import timedelta
from functools import cache

from django.db import Error, connection
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now
from django.utils import timezone
from rest_framework.request import Request

from .. import keys, queries
from ..history import stored_id
from ..models import LIVE, Job, Scope, Status
from .authentication import LONGEST
from .hub import ask

POLL_SECONDS = "1"  # how soon a new job is worth another look
PAUSE_SHARE, PAUSE_MOST = 0.1, 10.0  # later ones: this share of its age, and the most seconds
SHOWN = ("status", "attempt", "round", "failures", "max_attempts", "progress", "stage", "error_code", "error_message")
NEEDED = ("id", "queue", "priority", "run_after", "started_at")  # for its place and its hint
_DIGEST, _JOB_ID = "<digest>", uuid.UUID(int=0)  # in the statement's parameters, for those of a request
_JOB = re.compile(r"/api/jobs/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/?")


def headers(job: Job, position: int | None) -> dict[str, str]:
    """The headers of a job's detail. Its tag is weak: of all that is shown but the estimate of the time left, which
    always changes. Times and costs move only with status and attempt."""
    seen = repr([*(getattr(job, name) for name in SHOWN), queries.status_hint(job), position])
    etag = f'W/"{hashlib.blake2b(seen.encode(), digest_size=12).hexdigest()}"'
    again = {"Retry-After": pause(job)} if job.status in LIVE else {}
    return {"ETag": etag, "Cache-Control": "private, no-cache", **again}


def pause(job: Job) -> str:
    """Seconds until a live job is worth another look: a tenth of how long it has run or waited, so that nobody learns
    of its end much later than it came; before it may start at all, until then."""
    since = job.started_at if job.status == Status.RUNNING else job.run_after
    age = (timezone.now() - since).total_seconds() if since else 0.0
    return str(round(min(max(PAUSE_SHARE * age if age > 0 else -age, float(POLL_SECONDS)), PAUSE_MOST)))


def knows(given: str, etag: str) -> bool:
    """Whether an If-None-Match names that tag; a proxy may have made it strong or weak."""
    bare = etag.removeprefix("W/")
    return any(one.strip().removeprefix("W/") == bare for one in given.split(",")) or given.strip() == "*"


async def answered(scope, send) -> bool:
    """Answer 304 if this is a key's poll of a job that it knows as it is. All else is Django's to answer."""
    if scope["method"] != "GET" or scope["query_string"] or not (match := _JOB.fullmatch(scope["path"])):
        return False
    given = dict(scope["headers"])  # the last one of each name
    known = given.get(b"if-none-match")
    scheme, _, secret = given.get(b"authorization", b"").partition(b" ")
    if not known or scheme.lower() != b"bearer" or b"origin" in given or b"prefer" in given:
        return False
    try:
        found = await ask(_unchanged, secret.strip().decode("latin-1"), uuid.UUID(match[1]), known.decode("latin-1"))
    except Error:
        return False
    if found is None:
        return False
    found["X-Request-Id"] = uuid.uuid4().hex
    wire = [(name.lower().encode(), value.encode()) for name, value in found.items()]
    await send({"type": "http.response.start", "status": 304, "headers": wire})
    await send({"type": "http.response.body", "body": b""})
    return True


def _unchanged(secret: str, job_id: uuid.UUID, known: str) -> dict[str, str] | None:
    """The headers of a 304; None if the job has changed, is none of the key's, or the key was last used a while ago."""
    if len(secret) > LONGEST:
        return None
    sql, params = _statement(connection.vendor)
    given = {_DIGEST: keys.digest(secret), stored_id(_JOB_ID): stored_id(job_id)}
    job = next(iter(Job.objects.raw(sql, [given.get(value, value) for value in params])), None)
    if job is None:
        return None
    found = headers(job, queries.position(job))
    return found if knows(known, found["ETag"]) else None


@cache
def _statement(vendor: str) -> tuple[str, tuple]:
    """(SQL, parameters) that find a job by its id and a key: the ORM's own, made once, for making it takes ten times as
    long as running it. A key that was not used in the last minute has its use written down first, by the long way."""
    key = keys.live().filter(digest=_DIGEST, last_used_at__gt=Now() - timedelta(minutes=1))
    may = Exists(key.filter(~Q(scope=Scope.USER) | Q(owner_id=OuterRef("owner_id"))))
    return Job.objects.filter(may, pk=_JOB_ID).values_list(*SHOWN, *NEEDED).query.sql_with_params()


def unchanged(request: Request, etag: str) -> bool:
    """The same for a request that came as far as its view: a browser's."""
    known = request.headers.get("If-None-Match")
    return bool(known) and knows(known, etag)
