"""Every read that two faces share. Each is a fixed number of statements, however many jobs it is asked about."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Prefetch, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from tokens.models import Transaction

from .models import WAITING, Artifact, IdempotencyKey, Job, JobEvent, Status, Upload

POSITION_MOST = 1000  # a queue place is counted no further
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


@dataclass(frozen=True)
class Cost:
    """Whole tokens over all rounds of a job, from the ledger; `returned` says whether the last round's came back."""

    charged: int = 0
    refunded: int = 0
    returned: bool = False


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


def position(job: Job) -> int | None:
    """The job's place in its queue, 1 for the next one, counted to 1,000; None unless it waits."""
    if job.status not in WAITING:
        return None
    sooner = Q(priority__gt=job.priority, run_after__lte=Now()) | Q(priority=job.priority, run_after__lt=job.run_after)
    ahead = Job.objects.filter(sooner, queue=job.queue, run_after__isnull=False).exclude(pk=job.pk).order_by()
    return min(ahead[:POSITION_MOST].count() + 1, POSITION_MOST)


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
    """A job's attempts, oldest first, folded from its events: when each began and ended, and in what."""
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
            }
        elif (attempt := folded.get(event.attempt)) and attempt["finished_at"] is None:
            attempt |= {"status": event.status, "finished_at": event.at, "code": event.code, "message": event.message}
    return list(folded.values())


def active(owner_id: int, most: int) -> int:
    """How many of a user's jobs have not ended, counted to `most`."""
    return Job.objects.filter(owner_id=owner_id, finished_at__isnull=True).order_by()[:most].count()


def submitted_since(owner_id: int, seconds: float, most: int) -> int:
    """How many jobs a user submitted in the last `seconds`, counted to `most`. Job ids are ordered by time."""
    since = int((timezone.now().timestamp() - seconds) * 1000)
    first = uuid.UUID(int=max(since, 0) << 80)  # RFC 9562: a UUIDv7 begins with 48 bits of milliseconds
    return Job.objects.filter(owner_id=owner_id, id__gt=first).order_by()[:most].count()


def knows_key(owner_id: int, key: str) -> bool:
    """Whether this Idempotency-Key of the user made a job before."""
    return IdempotencyKey.objects.filter(owner_id=owner_id, key=key).exists()
