"""One job: what it does, how far it is, what it cost, why it failed, what came out; cancel, retry, delete."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import cache_control

from jobs import explain, intake, joblog, kinds, lifecycle, queries
from jobs.models import LIVE, Job, Status
from jobs.words import span, tokens

from ..errors import ErrorCode, Refused
from .base import action, page
from .jobs import about
from .outputs import shown


@page
def job(request: HttpRequest, job_id) -> HttpResponse:
    """The page, which keeps itself up to date through `live`."""
    return render(request, "web/job.html", _all(_own(request, job_id)))


@page
def live(request: HttpRequest, job_id) -> HttpResponse:
    """What moves while a job waits or runs. Once more than that has changed since the page was `seen`, the whole."""
    one = _own(request, job_id)
    if request.GET.get("seen") == _seen(one):
        told = explain.explain(one, for_operator=False)
        return render(request, "web/job_progress.html", {**_moving(one, told), "title": True})
    answer = render(request, "web/job_body.html", {**_all(one), "title": True})
    answer["HX-Retarget"], answer["HX-Reswap"] = "#job", "outerHTML"
    return answer


@action("job", takes_id=True)
def cancel(request: HttpRequest, job_id) -> None:
    """End it now. What came back is read from the ledger."""
    ended = lifecycle.cancel(_own(request, job_id).pk, by=_by(request))
    back = queries.costs([ended])[ended.pk].refunded
    messages.success(request, f"Cancelled: {tokens(back)} back." if back else "Cancelled.")


@action("job", takes_id=True)
def retry(request: HttpRequest, job_id) -> None:
    """Another round, charged again."""
    one = _own(request, job_id)
    if one.kind in kinds.names():
        intake.check_room(request.user.pk, kinds.get(one.kind))
    again = lifecycle.retry(one.pk, by=_by(request))
    charged = f" {tokens(again.price)} charged." if again.price else ""
    messages.success(request, f"Queued again.{charged}")


@action("job", takes_id=True)
def delete(request: HttpRequest, job_id) -> HttpResponse:
    """Remove it and its outputs; its ledger lines stay."""
    lifecycle.delete(_own(request, job_id).pk, by=_by(request), live=False)
    messages.success(request, "The job and its files are deleted. Its lines in the ledger stay.")
    return redirect("web:jobs")


@cache_control(public=True, max_age=86_400, immutable=True)
def icon(request: HttpRequest, percent: int) -> HttpResponse:
    """A tab's icon: a ring that is closed at 100. Nobody's own, so it asks for no session."""
    if percent > 100:
        raise Http404
    return render(request, "web/progress.svg", {"percent": percent}, content_type="image/svg+xml")


def _own(request: HttpRequest, job_id) -> Job:
    """The user's job of that id; anybody else's is not there."""
    found = queries.with_outputs(queries.jobs_for(request.user)).filter(pk=job_id).first()
    if found is None:
        raise Refused(ErrorCode.not_found)
    return found


def _by(request: HttpRequest) -> str:
    return f"user:{request.user.pk}"


def _seen(one: Job) -> str:
    """Names all of a job's state but what `_moving` shows."""
    return f"{one.status}-{one.round}-{one.attempt}"


def _moving(one: Job, told: explain.Explanation) -> dict[str, Any]:
    """For `job_progress.html`."""
    left = queries.eta(one, queries.position(one)) if one.status in LIVE else None
    return {
        "job": one,
        "live": one.status in LIVE,
        "seen": _seen(one),
        "percent": int(one.progress * 100),
        "now": told.now,
        "left": _between(*left) if left else "",
        "warming": queries.status_hint(one) == "warming_gpu",
        "back": lifecycle.back_if_cancelled(one) if one.status in LIVE else 0,
    }


def _all(one: Job) -> dict[str, Any]:
    """For `job_body.html`."""
    told = explain.explain(one, for_operator=False)
    return {
        **_moving(one, told),
        "section": "jobs",
        "about": about(one),
        "error_code": one.error_code if one.status in (Status.FAILED, Status.CANCELED) else "",
        "failed": one.status == Status.FAILED,
        "timeline": told.timeline,
        "money": told.money,
        "log": joblog.latest(one),
        "params": [(name, _plain(value)) for name, value in (one.params | one.metadata).items()],
        "outputs": shown(list(one.outputs.all())) if one.status == Status.SUCCEEDED else [],
        "offered": one.kind in kinds.names(),
    }


def _between(low: float, high: float) -> str:
    """A guess that says how good it is: `about 20 s`, `20 s to 3 min`."""
    first, last = span(max(10.0, low)), span(max(10.0, high))
    return f"about {last}" if first == last else f"{first} to {last}"


def _plain(value: Any) -> str:
    """A param as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "\n".join(map(_plain, value)) if isinstance(value, list) else str(value)
