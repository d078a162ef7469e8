"""Jobs that ended long ago go, with their files: by the operator's command, and by RETENTION_DAYS."""

import logging
import time
import uuid
from dataclasses import dataclass, field
from datetime import timedelta

from django.conf import settings
from django.db import Error, connection
from django.db.models import Count, QuerySet, Sum
from django.db.models.functions import Coalesce, Now

from . import lifecycle
from .errors import Refused
from .kinds.base import REGISTRY
from .models import FINAL, Job

log = logging.getLogger(__name__)

SECONDS = 8.0  # that one turn of Beat may take: the upkeep worker has other watchmen to run
PAUSE = 0.002  # seconds between two write transactions of a loop: SQLite's lock is unfair


@dataclass
class Report:
    """What was deleted, and which jobs could not be, each with the reason."""

    jobs: int = 0
    files: int = 0
    bytes: int = 0
    failed: list[tuple[uuid.UUID, str]] = field(default_factory=list)


def old(days: float, kind: str = "") -> QuerySet[Job]:
    """Jobs that ended more than `days` ago, the oldest first, each with the number and the bytes of its `files`."""
    jobs = Job.objects.filter(status__in=FINAL, finished_at__lt=Now() - timedelta(days=days))
    sized = jobs.annotate(files=Count("outputs"), bytes=Coalesce(Sum("outputs__bytes"), 0))
    return (sized.filter(kind=kind) if kind else sized).order_by("finished_at", "id")


def delete(jobs: QuerySet[Job], *, by: str, seconds: float | None = None) -> Report:
    """Delete the jobs of `old`, one transaction each, for at most `seconds`. One that cannot go stops no other."""
    report = Report()
    began = time.monotonic()
    for job_id, files, size in list(jobs.values_list("pk", "files", "bytes")):
        if seconds is not None and time.monotonic() - began > seconds:
            break
        try:
            lifecycle.delete(job_id, by=by, live=False)
        except Refused as refused:
            report.failed.append((job_id, refused.detail))
        except Error as error:
            connection.close_if_unusable_or_obsolete()
            report.failed.append((job_id, type(error).__name__))
        else:
            report.jobs, report.files, report.bytes = report.jobs + 1, report.files + files, report.bytes + size
        time.sleep(PAUSE)
    return report


def apply() -> int:
    """Delete what RETENTION_DAYS and RETENTION_DAYS_<KIND> give up, for about SECONDS. Returns how many jobs."""
    own = settings.JOBSITE
    until = time.monotonic() + SECONDS
    gone = 0
    for kind in sorted({*REGISTRY, *own["RETENTION_DAYS_OF"]}):
        if days := own["RETENTION_DAYS_OF"].get(kind, own["RETENTION_DAYS"]):
            report = delete(old(days, kind), by="retention", seconds=until - time.monotonic())
            for job_id, why in report.failed:
                log.warning("Job %s is kept beyond its %s days: %s", job_id, days, why)
            if report.jobs:
                log.info("Retention: %s %s jobs older than %s days, %s files", report.jobs, kind, days, report.files)
            gone += report.jobs
    return gone
