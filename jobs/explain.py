"""Why one job waits, failed, and costs what it costs: in words, for its owner or for the operator.

Everything is told from rows: the job, its events, its bookings, the workers and pauses as they are now. A fixed number
of statements.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.utils import timezone

from tokens.models import Transaction

from . import dispatch, lifecycle, policies, queries, slots
from .errors import ErrorCode
from .models import LIVE, WAITING, CancelRefund, Job, JobEvent, Pause, Slot, Status
from .words import span, tokens

EVENTS_MOST = 500  # the latest of a job that are told

WATCHMEN = {
    "monitor": "the heartbeat monitor",
    "deadline": "its deadline",
    "beat": "the cleanup",
    "cron": "the cleanup, called from outside",
    "command": "the operator, at the command line",
    "release_stale": "the operator, at the command line",
    "rehearse": "a rehearsal",
    "retention": "the retention rule",
    "import": "the import from the replaced system",
}
UPON_CANCEL = {
    CancelRefund.FULL: "everything comes back",
    CancelRefund.UNUSED: "the part not yet worked for comes back",
    CancelRefund.NONE: "nothing comes back",
}


@dataclass(frozen=True)
class Line:
    """One thing that happened; `tokens` is what the owner's balance moved by with it, `code` an ErrorCode's name."""

    at: datetime
    title: str
    detail: str = ""
    by: str = ""
    tokens: int = 0
    code: str = ""


@dataclass(frozen=True)
class Explanation:
    """`now`: sentences about how the job stands, the first one says it all. `timeline` and `money`, oldest first;
    the bookings of `money` add up to what the job cost so far."""

    now: list[str]
    timeline: list[Line]
    money: list[Line]


def explain(job: Job, *, for_operator: bool) -> Explanation:
    """What is known of a job. The owner hears of workers and other people only in general; the operator by name."""
    events = list(JobEvent.objects.filter(job_id=job.pk).order_by("-id")[:EVENTS_MOST])[::-1]
    names = _names(events) if for_operator else {}
    timeline = [
        Line(
            event.at,
            _title(event, job),
            _detail(event),
            _who(event.by, job, names, for_operator=for_operator),
            event.tokens,
            event.code,
        )
        for event in events
    ]
    booked = list(_bookings(job))
    return Explanation(list(_now(job, booked, for_operator=for_operator)), timeline, booked)


# --- how it stands -------------------------------------------------------------------------------------------------


def _now(job: Job, booked: list[Line], *, for_operator: bool) -> Iterator[str]:
    status = Status(job.status)
    if status in WAITING:
        yield from _waits(job, for_operator=for_operator)
    elif status == Status.RUNNING:
        yield from _runs(job, for_operator=for_operator)
    elif status == Status.SUCCEEDED:
        took = (
            f" It ran for {span((job.finished_at - job.started_at).total_seconds())}."
            if job.started_at and job.finished_at
            else ""
        )
        yield f"Done.{took}"
    else:
        code = ErrorCode.__members__.get(job.error_code)
        yield job.error_message or (code.row.sentence if code else "It ended.")
        if code and status == Status.FAILED:
            yield code.row.advice
            if job.max_attempts > 1:
                yield _budget(job, code)
    if job.status in LIVE and job.cancel_at:
        left = span((job.cancel_at - timezone.now()).total_seconds())
        yield f"It is cancelled if it has not ended in {left}: the deadline it was submitted with."
    yield _cost(job, booked)


def _waits(job: Job, *, for_operator: bool) -> Iterator[str]:
    """The reasons in the order in which they would have to go away."""
    if held := Pause.objects.filter(queue=job.queue).first():
        yield f"It waits because the operator paused the queue {job.queue}: {held.reason}"
    if job.status == Status.RETRY:
        yield f"Attempt {job.attempt} ended: {job.error_message or job.error_code}"
        left = job.max_attempts - job.failures
        yield f"It will be tried again; {left} of {job.max_attempts} attempts are left."
    if job.run_after and (wait := (job.run_after - timezone.now()).total_seconds()) > 0:
        yield f"It may start in {span(wait)}."
        return
    if held:
        return
    serving = slots.serving(job.queue)
    if not serving:
        told = f"No worker serves the queue {job.queue}"
        yield f"{told}: start one with -Q {job.queue}." if for_operator else f"{told} at the moment."
        return
    place = queries.position(job)
    busy = serving - dispatch.free_slots(job.queue)
    more = " or more" if place == queries.POSITION_MOST else ""
    yield f"It is number {place}{more} in the queue {job.queue}; {busy} of {serving} slots are busy."


def _runs(job: Job, *, for_operator: bool) -> Iterator[str]:
    now = timezone.now()
    if job.round_attempts > job.failures + 1:  # some were handed back, which is no failure
        tries = f"attempt {job.round_attempts}, {job.failures} of at most {job.max_attempts} failed"
    elif job.max_attempts > 1:
        tries = f"attempt {job.round_attempts} of at most {job.max_attempts}"
    else:
        tries = "its one attempt"
    since = f" for {span((now - job.started_at).total_seconds())}" if job.started_at else ""
    yield f"It runs{since}: {job.stage or 'started'}, {round(100 * job.progress)} %, {tries}."
    if queries.status_hint(job):
        yield "The GPU is warming up; a first run takes about 30 seconds longer."
    silence = (now - job.heartbeat_at).total_seconds() if job.heartbeat_at else 0.0
    if silence > 5 * settings.JOBSITE["HEARTBEAT_SECONDS"]:
        after = span(_patience(job))
        yield f"Its worker has said nothing for {span(silence)}; after {after} the cleanup ends the attempt."
    if for_operator and job.slot_id and (slot := Slot.objects.filter(pk=job.slot_id).first()):
        yield f"It runs in process {slot.pid} on {slot.host}."


def _patience(job: Job) -> float:
    """Seconds without a heartbeat after which the cleanup takes this job."""
    return policies.rule(job.kind, job.tier).timeout_seconds or policies.patience()


def _budget(job: Job, code: ErrorCode) -> str:
    if not code.row.retryable:
        return "Trying again would not have helped, so it was not tried again."
    return f"{job.failures} of {job.max_attempts} attempts failed."


# --- what it costs -------------------------------------------------------------------------------------------------


def _cost(job: Job, booked: list[Line]) -> str:
    """One sentence from the ledger's lines."""
    charged = -sum(line.tokens for line in booked if line.tokens < 0)
    back = sum(line.tokens for line in booked if line.tokens > 0)
    if not charged:
        return "It was not charged."
    rule = f" If it is cancelled, {_upon_cancel(job)}." if job.status in LIVE else ""
    if not back:
        return f"{tokens(charged)} charged.{rule}"
    if rule:
        return f"{tokens(charged)} charged, {tokens(back)} back so far.{rule}"
    return f"{tokens(charged)} charged, {tokens(back)} back: it cost {tokens(charged - back)}."


def _upon_cancel(job: Job) -> str:
    if job.status != Status.RUNNING:
        return "everything comes back"
    rule = UPON_CANCEL[CancelRefund(job.cancel_refund or CancelRefund.FULL)]
    return f"{rule} (now {tokens(lifecycle.back_if_cancelled(job))})"


def _bookings(job: Job) -> Iterator[Line]:
    """The ledger's lines of all rounds, each with its reason and the rule behind it; one statement."""
    for charge in queries.charges(job):
        number = int(charge.reference.rpartition(":")[2])
        kind = f"{job.kind} {job.tier}".strip()
        again = f", charged again for round {number}" if number > 1 else ""
        yield Line(charge.created_at, "Charged", f"The price of {kind} as it was sold{again}.", tokens=charge.amount)
        if refund := getattr(charge, "refund", None):
            yield Line(
                refund.created_at,
                "Refunded",
                _why_back(job, refund, -charge.amount),
                tokens=refund.amount,
                code=refund.reason,
            )


def _why_back(job: Job, refund: Transaction, paid: int) -> str:
    code = ErrorCode.__members__.get(refund.reason)
    why = code.row.sentence if code else refund.reason
    if refund.amount < paid:
        return f"{why} Its rule for a cancel while it runs: {UPON_CANCEL[CancelRefund(job.cancel_refund)]}."
    return why


# --- what happened -------------------------------------------------------------------------------------------------


def _title(event: JobEvent, job: Job) -> str:
    match Status(event.status):
        case Status.QUEUED:
            return "Submitted" if event.round == 1 else f"Retried: round {event.round}"
        case Status.RUNNING:
            return f"Attempt {event.attempt} started"
        case Status.RETRY:
            return f"Attempt {event.attempt} ended; to be tried again"
        case Status.SUCCEEDED:
            return "Succeeded"
        case Status.FAILED:
            return "Failed"
        case _:
            return "Cancelled"


def _detail(event: JobEvent) -> str:
    code = ErrorCode.__members__.get(event.code)
    told = event.message or (code.row.sentence if code else "")
    if event.stages:
        took = ", ".join(f"{name} {span(seconds)}" for name, seconds in event.stages)
        return f"{told} Stages: {took}.".strip()
    return told


def _who(by: str, job: Job, names: dict[int, str], *, for_operator: bool) -> str:
    """Who did it. `by` is user:<id>, worker, a watchman's name, or cleanup (<who asked for it>)."""
    if by.startswith("cleanup (") and by.endswith(")"):
        asked = by.removeprefix("cleanup (").removesuffix(")")
        who = _who(asked, job, names, for_operator=for_operator)
        return "the cleanup" if asked in ("beat", "cron") else f"the cleanup, asked for by {who}"
    if by.startswith("user:") and by[5:].isdigit():
        user_id = int(by[5:])
        if for_operator:
            return names.get(user_id, f"user {user_id}")
        return "you" if user_id == job.owner_id else "the operator"
    if by == "worker":
        return "the worker"
    return WATCHMEN.get(by, by if for_operator else "the platform")


def _names(events: list[JobEvent]) -> dict[int, str]:
    """User id → name of everybody who acted."""
    ids = {int(digits) for event in events if (digits := event.by.rpartition("user:")[2].rstrip(")")).isdigit()}
    users: Any = get_user_model().objects.filter(pk__in=ids)
    return dict(users.values_list("pk", users.model.USERNAME_FIELD))
