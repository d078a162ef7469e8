"""Every read that two faces share. Each is a fixed number of statements, however many jobs it is asked about."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import connection
from django.db.models import Prefetch, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from tokens.models import Account, Transaction

from . import history, slots
from .models import FINAL, WAITING, Artifact, IdempotencyKey, Job, JobEvent, Status, Upload

POSITION_MOST = 1000  # a queue place is counted no further
ETA_JOBS, ETA_LEAST = 300, 3  # how many of the last jobs are looked at; of how many like it a guess is made
AHEAD = """
SELECT COUNT(*) FROM (
    SELECT 1 FROM jobs_job WHERE queue = %s AND run_after IS NOT NULL AND id <> %s
    AND ((priority > %s AND run_after <= {now}) OR (priority = %s AND run_after < %s)) LIMIT %s) AS ahead
"""  # bare: every poll of a job that waits asks it, and the ORM takes ten times as long to say it
EVENTS_MOST = 500  # of one job, for its attempts


def jobs_for(user: AbstractBaseUser, *, everybody: bool = False) -> QuerySet[Job]:
    """The jobs that `user` may see: their own, or everybody's."""
    jobs = Job.objects.order_by("-id")
    return jobs if everybody else jobs.filter(owner=user)


def with_outputs(jobs: QuerySet[Job]) -> QuerySet[Job]:
    """The same jobs with their outputs read along, in one statement more."""
    return jobs.prefetch_related(Prefetch("outputs", Artifact.objects.order_by("id")))


def uploads_of(user: AbstractBaseUser) -> QuerySet[Upload]:
    """A user's uploads, newest first."""
    return Upload.objects.filter(owner=user).order_by("-id")


def balance(user_id: int) -> int:
    """What a user can spend, in whole tokens."""
    return Account.objects.filter(pk=user_id).values_list("balance", flat=True).first() or 0


@dataclass(frozen=True)
class Cost:
    """Whole tokens over all rounds of a job, from the ledger; `returned` says whether the last round's came back."""

    charged: int = 0
    refunded: int = 0
    returned: bool = False


def charges(job: Job) -> QuerySet[Transaction]:
    """The charges of all rounds of a job, oldest first, each with its `refund` if there is one, in one statement.

    By reference and by what reverses it: both are unique indexes, where a search by prefix would read it all.
    """
    references = [f"job:{job.pk}:{number}" for number in range(1, job.round + 1)] if job.price else []
    booked = Transaction.objects.filter(kind=Transaction.Kind.CHARGE, reference__in=references)
    return booked.select_related("refund").order_by("id")


def costs(jobs: Iterable[Job]) -> dict[uuid.UUID, Cost]:
    """What each job took and gave back so far, in one statement."""
    jobs = list(jobs)
    paid = {f"job:{job.pk}:{number}": job for job in jobs if job.price for number in range(1, job.round + 1)}
    found = dict.fromkeys((job.pk for job in jobs), Cost())
    if paid:
        booked = Transaction.objects.filter(kind=Transaction.Kind.CHARGE, reference__in=list(paid)).order_by()
        for reference, amount, back in booked.values_list("reference", "amount", "refund__amount"):
            job = paid[reference]
            so_far = found[job.pk]
            found[job.pk] = Cost(
                so_far.charged - amount,
                so_far.refunded + (back or 0),
                so_far.returned or (back is not None and reference == f"job:{job.pk}:{job.round}"),
            )
    return found


def deadline(job: Job) -> datetime | None:
    """When the clock ends a live job at the latest: its own deadline or its attempt's limit; None for neither."""
    if job.status in FINAL:
        return None
    limits = [job.cancel_at, job.deadline_at if job.status == Status.RUNNING else None]
    return min((at for at in limits if at), default=None)


def position(job: Job) -> int | None:
    """The job's place in its queue, 1 for the next one, counted to 1,000; None unless it waits."""
    if job.status not in WAITING:
        return None
    due = connection.ops.adapt_datetimefield_value(job.run_after)
    given = [job.queue, history.stored_id(job.pk), job.priority, job.priority, due, POSITION_MOST - 1]
    with connection.cursor() as cursor:
        cursor.execute(AHEAD.format(now=history.NOW[connection.vendor]), given)
        return cursor.fetchone()[0] + 1


def eta(job: Job, place: int | None = None) -> tuple[float, float] | None:
    """Seconds until a live job has probably ended, as p50 and p90 of what jobs like it took lately; None if too few
    did, or if no worker serves its queue. `place` is its place in the queue. Two statements at most."""
    now = timezone.now()
    lately = Job.objects.filter(status=Status.SUCCEEDED).order_by("-id")[:ETA_JOBS]
    took: dict[tuple[str, str], list[float]] = {}
    in_queue: list[float] = []
    for kind, tier, queue, began, ended in lately.values_list("kind", "tier", "queue", "started_at", "finished_at"):
        if began is not None:
            took.setdefault((kind, tier), []).append(seconds := (ended - began).total_seconds())
            in_queue += [seconds] if queue == job.queue else []
    like_it = sorted(took.get((job.kind, job.tier), []))
    if len(like_it) < ETA_LEAST:
        return None
    half, most = like_it[len(like_it) // 2], like_it[len(like_it) * 9 // 10]
    if job.status == Status.RUNNING and job.started_at:
        past = max((now - job.started_at).total_seconds(), 0.0)
        if past > most and not job.progress:
            return None
        if job.progress >= 0.1 or past > most:  # its own speed says more
            half, most = past / job.progress, past / job.progress * min(max(most / half if half else 1.0, 1.0), 3.0)
        return max(half - past, 0.0), max(most - past, 0.0)
    if job.status not in WAITING:
        return None
    serving = slots.serving(job.queue)
    if not serving:
        return None
    before = ((place or 1) - 1) / serving * sorted(in_queue)[len(in_queue) // 2]
    before = max(before, (job.run_after - now).total_seconds() if job.run_after else 0.0)
    return before + half, before + most


def status_hint(job: Job, now: datetime | None = None) -> str | None:
    """`warming_gpu` while a GPU job, here or on RunPod, has run for COLD_START_THRESHOLD without progress."""
    if job.status != Status.RUNNING or job.queue not in ("gpu", "remote") or job.progress or job.started_at is None:
        return None
    waited = (now or timezone.now()) - job.started_at
    return "warming_gpu" if waited > timedelta(seconds=settings.JOBSITE["COLD_START_THRESHOLD"]) else None


def updated_at(job: Job) -> datetime:
    """When a job's row last said something new to its owner."""
    return job.finished_at or job.heartbeat_at or job.started_at or job.created_at


def silent(jobs: QuerySet[Job]) -> QuerySet[Job]:
    """Those of `jobs` that run without a beat for JOB_CLEANUP_TIMEOUT."""
    limit = Now() - timedelta(seconds=settings.JOBSITE["CLEANUP_TIMEOUT"])
    return jobs.filter(status=Status.RUNNING, heartbeat_at__lt=limit)


def attempts(job: Job) -> list[dict[str, Any]]:
    """A job's attempts, oldest first, folded from its events: when each began and ended, in what, and what its stages
    took."""
    folded: dict[int, dict[str, Any]] = {}
    events = JobEvent.objects.filter(job_id=job.pk).order_by("-id")[:EVENTS_MOST]
    for event in reversed(events):
        if event.status == Status.RUNNING:
            folded[event.attempt] = {
                "attempt": event.attempt,
                "round": event.round,
                "status": event.status,
                "started_at": event.at,
                "finished_at": None,
                "code": "",
                "message": "",
                "stages": [],
            }
        elif (attempt := folded.get(event.attempt)) and attempt["finished_at"] is None:
            attempt |= {"status": event.status, "finished_at": event.at, "code": event.code, "message": event.message}
            attempt["stages"] = [{"name": name, "seconds": seconds} for name, seconds in event.stages or ()]
    return list(folded.values())


def active(owner_id: int, most: int) -> int:
    """How many of a user's jobs have not ended, counted to `most`."""
    return Job.objects.filter(owner_id=owner_id, finished_at__isnull=True).order_by()[:most].count()


def first_id_since(seconds: float) -> uuid.UUID:
    """The least id of what was made in the last `seconds`: a UUIDv7 begins with 48 bits of milliseconds (RFC 9562)."""
    since = int((timezone.now().timestamp() - seconds) * 1000)
    return uuid.UUID(int=max(since, 0) << 80)


def submitted_since(owner_id: int, seconds: float, most: int) -> int:
    """How many jobs a user submitted in the last `seconds`, counted to `most`. Job ids are ordered by time."""
    first = first_id_since(seconds)
    return Job.objects.filter(owner_id=owner_id, id__gt=first).order_by()[:most].count()


def knows_key(owner_id: int, key: str) -> bool:
    """Whether this Idempotency-Key of the user made a job before."""
    return IdempotencyKey.objects.filter(owner_id=owner_id, key=key).exists()
