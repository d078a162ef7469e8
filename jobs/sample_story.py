"""Laying sample data: jobs of every kind and status, sold, run and settled as any other; only their times are moved.

What succeeds is really run, in this process, by the engines that cost nothing; what fails is claimed and failed in the
transaction that sells it, so no worker ever sees it waiting.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group
from django.db.models import F
from django.utils import timezone

from . import cleanup, intake, keys, kinds, lifecycle, people, runner, slots, uploads, webhook_sender, webhooks
from .engines import outbound
from .errors import ErrorCode, JobError
from .heartbeat import heart
from .lifecycle import Lease
from .models import Artifact, Job, JobEvent, LogLine, Muted, Sample, Slot, Status
from .sample_data import BY, GROUP, NAMES, here
from .transactions import write

TABLE = settings.BASE_DIR / "dev-samples" / "sales_demo.csv"
HARMLESS = {  # while it is laid: nobody outside is called, nothing is paid
    "RENDER_ENGINE": "preview",
    "ENHANCE_ENGINE": "resample",
    "LLM_KEY": "",
    "WEBHOOK_NETWORKS": outbound.LOOPBACK,
}
SMALL = {"seconds": 2, "fps": 12, "width": 480, "height": 270}
PROMPTS = ("a quiet harbour at dawn", "rain on a tin roof", "the last tram of the night", "a field of rape in May")
EVERY = timedelta(minutes=10)  # between two figures
STEP = timedelta(seconds=40)  # between two events of a job that only seems to have run
Say = Callable[[str], None]


def why_not() -> str:
    """Why no sample data may be laid here; empty if it may."""
    if here():
        return "Sample data is here already; remove it first."
    if Job.objects.exists():
        return "There are jobs here already, and samples among them would falsify figures and books: take a new one."
    return ""


def lay(say: Say) -> None:
    """Lay all of it; `why_not` was asked. Takes about half a minute. Tells `say` what it does."""
    began, own = timezone.now(), settings.JOBSITE
    ann, bob, carol = _user("ann", 400), _user("bob", 150), _user("carol", 4)
    settings.JOBSITE = {**own, **HARMLESS}
    try:
        with _beating():
            films = _that_succeeded(ann, bob, carol, say)
        _that_failed(ann, bob, films)
        _that_were_cancelled(ann, bob, films)
        say("failed, cancelled and cleaned up: done")
        _webhook(ann)
    finally:
        settings.JOBSITE = own
    keys.issue(ann, "sample")
    _figures(began)
    _that_wait(ann, bob, films)
    say("the rest waits for your workers")


@write
def _user(name: str, tokens: int):
    user = people.add(NAMES + name, tokens=tokens, by=BY)
    user.groups.add(Group.objects.get_or_create(name=GROUP)[0])
    return user


@contextmanager
def _beating() -> Iterator[None]:
    """This process as a slot that serves no queue."""
    heart.slot = slot = slots.register([])
    heart.start([], nudged=False)
    try:
        yield
    finally:
        heart.stop()
        Slot.objects.filter(pk=slot.pk).delete()


# --- what is told ---------------------------------------------------------------------------------------------------


def _that_succeeded(ann, bob, carol, say: Say) -> list[str]:
    """Real runs, from a day ago on. Returns references of some videos of Ann's, then of Bob's."""

    def done(owner, hours: float, kind: str, **params: Any) -> str:
        job = _run(_claimed(_sold(owner, kind, params)), hours)
        say(f"{kind} of {owner}: {job.status} {job.error_code}".rstrip())
        return f"job:{job.pk}"

    films = [
        done(owner, hours, "RENDER", prompt=PROMPTS[seed % 4], seed=seed, **SMALL)
        for seed, (owner, hours) in enumerate([(ann, 23.4), (ann, 22.1), (bob, 20.6), (bob, 19.8), (carol, 17.2)])
    ]
    ours, theirs = films[:2], films[2:4]
    table = f"upload:{uploads.take_copy(ann.pk, TABLE).pk}"
    done(ann, 15.5, "STITCH", clips=ours, crossfade=0.5)
    done(ann, 13.1, "ANALYZE", file=table)
    looked_at = done(bob, 10.7, "INGEST", source_type="upload", upload=theirs[0])
    done(bob, 8.7, "ENHANCE", image=f"{looked_at}/contact_sheet.jpg", tier="1K")
    done(bob, 6.2, "STITCH", clips=theirs)
    again = _failed(ann, 4.0, "RENDER", {"prompt": PROMPTS[0], **SMALL}, ErrorCode.bad_input)
    job = _run(_claimed(lifecycle.retry(again.pk, by=f"user:{ann.pk}")), 3.4)
    say(f"RENDER of {ann}, retried: {job.status}")
    done(ann, 2.3, "RENDER", prompt=PROMPTS[3], seed=7, **SMALL)
    done(bob, 0.4, "RENDER", prompt=PROMPTS[2], seed=8, **SMALL)
    return ours + theirs


def _that_failed(ann, bob, films: list[str]) -> None:
    """Dead letters by several codes, one with two tries behind it, one found by a cleanup; one job put off."""
    ours, theirs = films[:2], films[2:]
    render, join = {"prompt": PROMPTS[1], **SMALL}, {"clips": ours}
    _failed(ann, 14.2, "STITCH", join, ErrorCode.ffmpeg_error)
    _failed(bob, 9.3, "RENDER", render, *[ErrorCode.out_of_memory] * 3)
    _failed(bob, 5.1, "STITCH", {"clips": theirs}, ErrorCode.timeout)
    _failed(ann, 1.6, "RENDER", render, ErrorCode.worker_lost, ErrorCode.provider_error)
    _failed(ann, 0.7, "RENDER", render, ErrorCode.bad_input)
    _cleaned_up(bob, 0.6, render)
    later = JobError(ErrorCode.provider_error, "The service is known to be down.", postpone=7200)
    _put_off(ann, 0.5, join, later)


@write
def _failed(owner, hours: float, kind: str, params: dict[str, Any], *codes: ErrorCode) -> Job:
    """A job that ended FAILED, one attempt by each code."""
    job = _sold(owner, kind, params, max_attempts=len(codes))
    for code in codes:
        lease = _claimed(job)
        lifecycle.beat(lease, progress=0.3, stage="drawing" if kind == "RENDER" else "joining")
        lifecycle.fail(lease, JobError(code), by=BY)
    _date(job, hours, step=STEP)
    return job


@write
def _cleaned_up(owner, hours: float, params: dict[str, Any]) -> None:
    """A job whose worker fell silent: seen by a dry run, ended by a cleanup."""
    job = _sold(owner, "RENDER", params, max_attempts=1)
    lifecycle.strand(job.pk, ago=timedelta(minutes=10), by=BY)
    for dry_run in (True, False):
        run = cleanup.cleanup_stuck_jobs(by=BY, dry_run=dry_run)
        run.started_at -= timedelta(hours=hours)
        run.finished_at -= timedelta(hours=hours)
        run.save()
    _date(job, hours, step=15 * STEP)


@write
def _put_off(owner, hours: float, params: dict[str, Any], why: JobError) -> None:
    job = _sold(owner, "STITCH", params)
    lifecycle.fail(_claimed(job), why, by=BY)
    _date(job, hours, step=STEP)


def _that_were_cancelled(ann, bob, films: list[str]) -> None:
    """One while it waited, one half-way; both by their owners, refunded as they were sold."""

    @write
    def cancelled(owner, hours: float, kind: str, params: dict[str, Any], *, running: bool) -> None:
        job = _sold(owner, kind, params)
        if running:
            lifecycle.beat(_claimed(job), progress=0.42, stage="drawing")
        lifecycle.cancel(job.pk, by=f"user:{owner.pk}")
        _date(job, hours, step=STEP)

    cancelled(bob, 12.4, "STITCH", {"clips": films[2:]}, running=False)
    cancelled(ann, 7.5, "RENDER", {"prompt": PROMPTS[2], **SMALL}, running=True)


def _that_wait(ann, bob, films: list[str]) -> None:
    """Jobs that your workers run, if there are any; long ones where they cost nothing."""
    if settings.JOBSITE["RENDER_ENGINE"] == "preview":
        _sold(ann, "RENDER", {"prompt": PROMPTS[0], "seconds": 30, "width": 1280, "height": 720})
    _sold(bob, "STITCH", {"clips": films[2:], "crossfade": 1})
    _sold(ann, "STITCH", {"clips": films[:2], "fps": 60})


def _webhook(owner) -> None:
    """An endpoint with one message that was taken and one that was not; a receiver of our own, which is gone then."""
    answers = [204, 503]

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(answers.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing: the delivery's own log tells it."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint, _ = webhooks.create(
            owner.pk, url=f"http://127.0.0.1:{server.server_port}/", description="the sample's receiver, gone since"
        )
        for _ in range(2):
            webhooks.send_test(endpoint)
        webhook_sender.deliver()
        server.shutdown()
    webhooks.mute(endpoint.pk, Muted.OFF)


# --- how it is done -------------------------------------------------------------------------------------------------


def _sold(owner, kind: str, params: dict[str, Any], *, max_attempts: int | None = None) -> Job:
    checked = intake.checked_params(kinds.get(kind), params)
    return lifecycle.submit(owner.pk, kind, checked, max_attempts=max_attempts)[0]


def _claimed(job: Job) -> Lease:
    """The job's next attempt, taken by its id: `lifecycle.claim` takes whatever is due."""
    row = lifecycle.strand(job.pk, ago=timedelta(0), by=BY)
    return Lease(row.pk, *(getattr(row, field.name) for field in fields(Lease)[1:]))


def _run(lease: Lease, hours: float) -> Job:
    """Really run an attempt; then it was `hours` ago."""
    runner.run(lease)
    job = Job.objects.get(pk=lease.job_id)
    _date(job, hours)
    return Job.objects.get(pk=job.pk)


@write
def _date(job: Job, hours: float, *, step: timedelta = timedelta(0)) -> None:
    """Move a job's times back by `hours`, each event by a `step` more than the one after it. The only write of sample
    data that is not lifecycle's or the ledger's; the ledger's own times cannot be moved."""
    ago = timedelta(hours=hours)
    events = list(JobEvent.objects.filter(job_id=job.pk).order_by("-id"))
    for number, event in enumerate(events):
        event.at -= ago + number * step
    JobEvent.objects.bulk_update(events, ["at"])
    row, last = Job.objects.get(pk=job.pk), events[0].at
    row.created_at = events[-1].at
    row.finished_at = last if row.finished_at else None
    if started := next((event.at for event in events if event.status == Status.RUNNING), None):
        row.started_at, row.heartbeat_at = started, last
        row.deadline_at = started + timedelta(seconds=row.run_limit)
    row.save(update_fields=["created_at", "started_at", "deadline_at", "heartbeat_at", "finished_at"])
    Artifact.objects.filter(job_id=job.pk).update(created_at=F("created_at") - ago)
    LogLine.objects.filter(job_id=job.pk).update(at=F("at") - ago)


def _figures(until: datetime) -> None:
    """The dashboard's figures of a day, counted from the jobs that ended in it; refunds were booked just now."""
    ended = list(Job.objects.filter(finished_at__isnull=False).values_list("finished_at", "status", "price"))
    nothing = dict.fromkeys(("queued", "oldest_wait", "running", "free_slots", "refunded"), 0)
    figures = []
    for number in range(timedelta(days=1) // EVERY):
        at = until - number * EVERY
        within = [(status, price) for finished, status, price in ended if at - EVERY < finished <= at]
        count = {
            name: sum(status == name.upper() for status, _ in within) for name in ("succeeded", "failed", "canceled")
        }
        earned = sum(price for status, price in within if status == Status.SUCCEEDED)
        figures.append(Sample(at=at, **nothing, **count, earned=earned))
    Sample.objects.bulk_create(figures, ignore_conflicts=True)
