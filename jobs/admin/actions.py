"""What an operator may do to jobs, one or many: each through lifecycle, with its line in the admin's log."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from jobs import cleanup, lifecycle
from jobs.errors import ErrorCode, Refused
from jobs.models import LIVE, Job, JobEvent, Status
from jobs.transactions import write

from .base import ReadOnly, ReasonForm, status_label, who
from .dashboard import figures

MOST = 100  # jobs in one action: each is a transaction of its own
TOLD = 20  # of those that were skipped, by id


@dataclass(frozen=True)
class Verb:
    """One thing to do to a job: in which states, by which transition, and how it is told."""

    name: str
    title: str
    done: str
    applies_to: list[Status]
    run: Callable[[uuid.UUID, str, str], Job]  # (job id, by, reason)
    tokens: str  # what it does to the owner's balance
    needs_reason: bool = False


CANCEL = Verb(
    "cancel", "Cancel", "Cancelled", LIVE, lambda pk, by, reason: lifecycle.cancel(pk, by=by), "tokens refunded"
)
RETRY = Verb(
    "retry", "Retry", "Retried", [Status.FAILED], lambda pk, by, reason: lifecycle.retry(pk, by=by), "tokens charged"
)
FAIL = Verb(
    "fail_by_hand",
    "Fail by hand",
    "Failed by hand",
    LIVE,
    lambda pk, by, reason: lifecycle.fail_by_hand(pk, reason=reason, by=by),
    "tokens refunded",
    needs_reason=True,
)

VERBS = {verb.name: verb for verb in (CANCEL, RETRY, FAIL)}


@write
def act(page: ReadOnly, request: HttpRequest, verb: Verb, job_id: uuid.UUID, reason: str = "") -> int:
    """Do one thing to one job and log who did it, in one transaction. Returns the tokens refunded or charged.

    Refused, with nothing written, if the job is gone or in another state (also where lifecycle would answer a
    repetition kindly: what was not done must not be reported as done).
    """
    job = Job.objects.select_for_update().filter(pk=job_id).first()
    if job is None:
        raise Refused(ErrorCode.not_found)
    if job.status not in verb.applies_to:
        code = ErrorCode.job_not_failed if verb is RETRY else ErrorCode.job_is_final
        raise Refused(code, f"The job is {job.status}.")
    if verb is FAIL and job.owner_id == request.user.pk and not request.user.is_superuser:
        raise Refused(ErrorCode.permission_denied, "It is your own: cancel it, which gives back what its rule says.")
    verb.run(job_id, who(request), reason)
    event = JobEvent.objects.filter(job_id=job_id).latest("id")
    tokens = abs(event.tokens)
    said = f"{verb.done}: {job.status} → {event.status}, {tokens} {verb.tokens}."
    page.log_change(request, job, " ".join([said, *([f"Reason: {reason}"] if reason else []), *_filter(request)]))
    return tokens


def act_and_tell(page: ReadOnly, request: HttpRequest, verb: Verb, ids: list[uuid.UUID], reason: str = "") -> None:
    """Do it to each job, then tell what was done, what was skipped and why, and the tokens that moved."""
    done, tokens, skipped = 0, 0, []
    for job_id in ids:
        if done:
            time.sleep(cleanup.PAUSE)
        try:
            tokens += act(page, request, verb, job_id, reason)
            done += 1
        except Refused as refused:
            skipped.append(f"{job_id} ({refused.detail})")
    figures.forget()
    if done:
        page.message_user(request, f"{verb.done} {_jobs(done)}; {tokens} {verb.tokens}.", messages.SUCCESS)
    if skipped:
        named = ", ".join(skipped[:TOLD]) + (f" and {len(skipped) - TOLD} more" if len(skipped) > TOLD else "")
        page.message_user(request, f"Skipped {_jobs(len(skipped))}: {named}", messages.WARNING)


def ask_then_act(page: ReadOnly, request: HttpRequest, verb: Verb, chosen: QuerySet[Job]) -> HttpResponse | None:
    """A list action in two steps: first a page that shows what would be done, then, when that was confirmed, it is.
    A retry that costs nothing is done at once: nothing can be lost by it."""
    jobs = list(chosen.select_related("owner").order_by("id")[: MOST + 1])
    if len(jobs) > MOST:
        page.message_user(request, f"Nothing was done: choose at most {MOST} jobs.", messages.ERROR)
        return None
    free = verb is RETRY and not any(job.price for job in jobs if job.status in verb.applies_to)
    confirmed = free or "confirmed" in request.POST
    form = ReasonForm(request, data=request.POST if confirmed else None) if verb.needs_reason else None
    if confirmed and (form is None or form.is_valid()):
        act_and_tell(page, request, verb, [job.pk for job in jobs], form.cleaned_data["reason"] if form else "")
        return HttpResponseRedirect(reverse("admin:index")) if request.POST.get("back") == "board" else None
    for job in jobs:
        job.applies = job.status in verb.applies_to
        job.moves = lifecycle.back_if_cancelled(job) if verb is CANCEL else job.price
        job.label = status_label(job)
    return TemplateResponse(
        request,
        "admin/jobs/confirm.html",
        {
            **page.admin_site.each_context(request),
            "opts": page.opts,
            "title": f"{verb.title}: are you sure?",
            "verb": verb,
            "jobs": jobs,
            "count": sum(job.applies for job in jobs),
            "tokens": sum(job.moves for job in jobs if job.applies),
            "form": form,
            "checkbox": ACTION_CHECKBOX_NAME,
            "back": request.POST.get("back", ""),
        },
    )


def _filter(request: HttpRequest) -> list[str]:
    """The list's filter that the job was chosen with, if any, for the log."""
    chosen = request.GET.urlencode()
    return [f"Filter: {chosen[:200]}"] if chosen else []


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"
