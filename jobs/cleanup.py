"""Who is stuck, and the sweeps that settle them: dead workers, lost processes, runs past their limit."""

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from django.conf import settings
from django.db import connection
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from . import history, lifecycle, policies, policy, slots
from .errors import ErrorCode, JobError, Refused
from .lifecycle import Running
from .models import CleanupRun, Job, Slot, StaleAction, Status

log = logging.getLogger(__name__)

PAUSE = 0.002  # seconds between two write transactions of a loop: SQLite's lock is unfair
OVERRUN = JobError(ErrorCode.timeout)
LATE_MOST, LATE_SECONDS = 500, 2.0  # jobs and seconds of one turn of `cancel_late`: its watchman sends nudges, too
JUMP = 30.0  # seconds that wall and monotonic clock may part between two sweeps


@dataclass
class Sweep:
    """What a sweep found and did: settled attempts, and (job id, why) of those that could not be settled."""

    found: int = 0
    settled: list[lifecycle.Settled] = field(default_factory=list)
    jobs: list[dict] = field(default_factory=list)  # of `settled`, as CleanupRun.jobs keeps them
    errors: list[tuple[uuid.UUID, str]] = field(default_factory=list)


class _Gone:
    """The verdict on a job whose worker is gone: `again`, or `final` where its policy says so. One error each, since
    settle groups by them."""

    def __init__(self, code: ErrorCode, message: str = ""):
        self.again, self.final = JobError(code, message), JobError(code, message, retryable=False)

    def __call__(self, job: Running | Job) -> JobError:
        action = policies.rule(job.kind, job.tier).stale_action
        return self.final if action == StaleAction.FAIL else self.again


SILENT = _Gone(ErrorCode.worker_timeout)


# --- the monitor: every 30 seconds -----------------------------------------------------------------------------------


def monitor_heartbeats() -> Sweep:
    """End attempts without a beat for HEARTBEAT_TIMEOUT, and at once those whose process on this host is gone."""
    report = Sweep()
    gone = [slot for slot in Slot.objects.filter(**slots.here()) if slots.gone(slot)]
    if gone:
        stuck = Job.objects.filter(status=Status.RUNNING, slot__in=[slot.pk for slot in gone])
        _settle_all(report, stuck, _Gone(ErrorCode.worker_lost), by="monitor")
    timeout = settings.JOBSITE["HEARTBEAT_TIMEOUT"]
    if not clock.jumped(timeout):
        stuck = Job.objects.filter(status=Status.RUNNING, heartbeat_at__lt=Now() - timedelta(seconds=timeout))
        _settle_all(report, stuck, SILENT, by="monitor")
    for done in report.settled:
        log.warning("Job %s timed out (last heartbeat: %s)", done.job.pk, done.job.heartbeat_at)
    if gone and not report.errors:  # their jobs are settled: the rows say nothing any more
        Slot.objects.filter(pk__in=[slot.pk for slot in gone]).delete()
    Slot.objects.filter(seen_at__lt=Now() - timedelta(days=1)).delete()
    return report


def release_stale() -> Sweep:
    """The ingestion queue's command: give up attempts without a beat for JOB_CLEANUP_TIMEOUT, at stage
    `released_stale`. A job whose budget is used up is FAILED, as by all others."""
    report = Sweep()
    timeout, _ = _checked(None, None)
    if not clock.jumped(timeout):
        stale = Job.objects.filter(status=Status.RUNNING, heartbeat_at__lt=Now() - timedelta(seconds=timeout))
        gone = _Gone(ErrorCode.worker_timeout, f"The worker timed out: no heartbeat for {timeout:g} s.")
        _settle_all(report, stale, gone, by="release_stale", stage="released_stale")
    return report


# --- deadlines: every 5 seconds ---------------------------------------------------------------------------------------


def cancel_late() -> int:
    """Cancel jobs whose deadline has passed, for two seconds at most. Returns how many. A job that cannot be settled
    stops no other."""
    until, done = time.monotonic() + LATE_SECONDS, 0
    for job_id in list(lifecycle.late().order_by("cancel_at").values_list("pk", flat=True)[:LATE_MOST]):
        try:
            done += lifecycle.cancel_late(job_id)
        except Exception:  # as in _settle_batch
            log.exception("Job %s is past its deadline and could not be cancelled", job_id)
            connection.close_if_unusable_or_obsolete()
        if time.monotonic() > until:
            break
        time.sleep(PAUSE)
    return done


# --- the cleanup: every 15 minutes, and on demand --------------------------------------------------------------------


def cleanup_stuck_jobs(
    *,
    by: str,
    timeout: float | None = None,
    batch_size: int | None = None,
    most: int | None = None,
    dry_run: bool = False,
) -> CleanupRun:
    """Settle attempts without a beat for `timeout` seconds, and those that beat but ran past their limit.

    A kind or tier whose policy has a timeout of its own keeps to that. `batch_size` rows a transaction, `most` rows in
    all. A dry run writes nothing but its own report. A job that cannot be settled is listed in `errors` and stops no
    other. Returns the saved report.
    Refused(invalid_request) for a timeout so short that a healthy run would be hit.
    """
    timeout, batch_size = _checked(timeout, batch_size)
    run = CleanupRun(by=by, timeout=timeout, batch_size=batch_size, dry_run=dry_run, started_at=timezone.now())
    log.info("Starting stuck jobs cleanup")
    stuck = find_stuck(timeout)
    report = Sweep()
    if dry_run:
        preview = list(stuck.order_by("started_at")[:most])
        report.found = len(preview)
        run.jobs = [_line(job, tokens=0, outcome="") for job in preview]
    else:
        _settle_all(
            report,
            stuck,
            lambda job: verdict(job, timeout),
            by=f"cleanup ({by})",
            batch_size=batch_size,
            most=most,
        )
        run.jobs = report.jobs
    run.found = report.found
    run.cleaned = len(report.settled)
    run.retried = sum(done.status == Status.RETRY for done in report.settled)
    run.failed = len(report.errors)
    run.tokens_refunded = sum(done.tokens for done in report.settled)
    run.errors = [{"jobId": str(job_id), "error": error} for job_id, error in report.errors]
    run.finished_at = timezone.now()
    run.save()
    log.info(
        "Cleanup completed totalFound=%s cleanedUp=%s tokensRefunded=%s", run.found, run.cleaned, run.tokens_refunded
    )
    return run


def find_stuck(timeout: float) -> QuerySet[Job]:
    """RUNNING jobs without a beat for `timeout` seconds (or their policy's), or past their run limit by RUN_GRACE."""
    silent = Q(heartbeat_at__lt=policies.silent_since(timeout))
    overrun = Q(deadline_at__lt=Now() - timedelta(seconds=settings.JOBSITE["RUN_GRACE"]))
    if clock.jumped(timeout):
        return Job.objects.none()
    return Job.objects.filter(silent | overrun, status=Status.RUNNING)


def _checked(timeout: float | None, batch_size: int | None) -> tuple[float, int]:
    own = settings.JOBSITE
    if timeout is None:
        timeout = policies.patience()
    least = policy.cleanup_timeout(0.0, own["HEARTBEAT_SECONDS"])
    if not least <= timeout <= 31_536_000:
        detail = f"Must be at least {least:g} seconds (5 heartbeats) and at most a year."
        raise Refused(ErrorCode.invalid_request, fields=[("timeout", "out_of_range", detail)])
    batch_size = own["CLEANUP_BATCH"] if batch_size is None else batch_size
    if not 1 <= batch_size <= 10_000:
        detail = "Must be between 1 and 10000."
        raise Refused(ErrorCode.invalid_request, fields=[("batch_size", "out_of_range", detail)])
    return timeout, batch_size


def verdict(job: Running | Job, timeout: float) -> JobError:
    """What a stuck job is ended with: for want of a beat, or for running too long though it beats."""
    now, timeout = timezone.now(), policies.rule(job.kind, job.tier).timeout_seconds or timeout
    beats = job.heartbeat_at is not None and now - job.heartbeat_at <= timedelta(seconds=timeout)
    return OVERRUN if beats and job.deadline_at and now > job.deadline_at else SILENT(job)


def _line(job: Running | Job, *, tokens: int, outcome: str) -> dict:
    now = timezone.now()
    return {
        "jobId": str(job.pk),
        "userId": job.owner_id,
        "kind": job.kind,
        "tokensRefunded": tokens,
        "processingDuration": max(0, round((now - (job.started_at or now)).total_seconds() * 1000)),  # milliseconds
        **({"status": outcome} if outcome else {}),
    }


# --- both ------------------------------------------------------------------------------------------------------------


def _settle_all(
    report: Sweep,
    stuck: QuerySet[Job],
    verdict: Callable[[Running], JobError],
    *,
    batch_size: int | None = None,
    most: int | None = None,
    **how: str,
) -> None:
    """Settle what `stuck` selects in batches; a batch that fails is done again one by one. `how` is `settle`'s."""
    batch_size = batch_size or settings.JOBSITE["CLEANUP_BATCH"]
    ids = list(stuck.order_by("started_at").values_list("pk", flat=True)[:most])
    report.found += len(ids)
    if ids:
        log.info("Found stuck jobs count=%s", len(ids))
    for start in range(0, len(ids), batch_size):
        batch = ids[start : start + batch_size]
        if _settle_batch(report, stuck.filter(pk__in=history.among(batch)), verdict, **how):
            continue
        for job_id in batch:
            if error := _settle_batch(report, stuck.filter(pk=job_id), verdict, last=True, **how):
                report.errors.append((job_id, error))
            time.sleep(PAUSE)


def _settle_batch(report: Sweep, stuck: QuerySet[Job], verdict, *, last: bool = False, **how: str) -> str | bool:
    """Settle one batch. Returns whether it went well; with `last`, the error's words or an empty string."""
    try:
        settled = lifecycle.settle(stuck, verdict, **how)
    except Exception as error:  # whatever is wrong with one job, it must not keep the others from their refunds
        log.exception("Stuck jobs could not be settled")
        connection.close_if_unusable_or_obsolete()
        return f"{type(error).__name__}: {error}"[:300] if last else False
    for done in settled:
        log.info("Cleaning up stuck job jobId=%s tokensCost=%s", done.job.pk, done.job.price)
        line = _line(done.job, tokens=done.tokens, outcome=done.status)
        seconds = line["processingDuration"] / 1000
        log.info("Job cleaned up successfully tokensRefunded=%s processingDuration=%.0fs", done.tokens, seconds)
        report.jobs.append(line)
    report.settled += settled
    return "" if last else True


class _Clock:
    """On SQLite the database's clock is this host's: after it jumped, ages mean nothing for one timeout."""

    def __init__(self) -> None:
        self._last = (time.time(), time.monotonic())
        self._distrusted_until = 0.0

    def jumped(self, timeout: float) -> bool:
        if connection.vendor != "sqlite":
            return False
        wall, steady = time.time(), time.monotonic()
        parted = abs((wall - self._last[0]) - (steady - self._last[1]))
        self._last = (wall, steady)
        if parted > JUMP:
            log.error("The clock jumped by %.0f s; nothing is reaped for %.0f s", parted, timeout)
            self._distrusted_until = steady + timeout
        return self.distrusted()

    def distrusted(self) -> bool:
        """Whether the last jump is less than a timeout ago."""
        return time.monotonic() < self._distrusted_until


clock = _Clock()
