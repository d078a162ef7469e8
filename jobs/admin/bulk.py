"""Acting on all jobs that a list's filter finds: counted and priced first, so many a go, and where it stopped known."""

import uuid
from dataclasses import dataclass

from django import forms
from django.contrib import messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextInputWidget

from jobs import lifecycle, stats
from jobs.models import Job

from .actions import CANCEL, VERBS, Verb, act_and_tell
from .base import ReadOnly

GO = 500  # jobs in one go: each is a transaction of its own, and the request waits for all
OURS = ("verb", "below")  # of the address; the rest is the list's own filter


class BulkForm(forms.Form):
    """Why, for an action whose owner reads it."""

    reason = forms.CharField(max_length=1000, widget=UnfoldAdminTextInputWidget, help_text="The owners will read this.")


@dataclass
class Preview:
    """What one go would do: `next_go` jobs that move `tokens`, of `fit` in all; `skipped` are found but cannot be."""

    fit: stats.Capped
    skipped: stats.Capped
    next_go: list[Job]
    tokens: int


def filtered(page: ReadOnly, request: HttpRequest) -> tuple[QuerySet[Job], QueryDict]:
    """The jobs that the list shows for this address, and the list's own part of it."""
    chosen = request.GET.copy()
    for name in OURS:
        chosen.pop(name, None)
    asked, request.GET = request.GET, chosen
    try:
        return page.get_changelist_instance(request).get_queryset(request), chosen
    finally:
        request.GET = asked


def preview(jobs: QuerySet[Job], verb: Verb, below: uuid.UUID | None) -> Preview:
    """Counted to stats.CAP; the newest jobs come first."""
    fit = jobs.filter(status__in=verb.applies_to)
    if below:
        fit = fit.filter(pk__lt=below)
    first = list(fit.order_by("-id")[:GO])
    moves = sum(lifecycle.back_if_cancelled(job) if verb is CANCEL else job.price for job in first)
    others = jobs.exclude(status__in=verb.applies_to).order_by()
    return Preview(stats.capped(fit.order_by()), stats.capped(others), first, moves)


def view(page: ReadOnly, request: HttpRequest) -> HttpResponse:
    """GET shows what would be done; POST does one go and comes back for the next."""
    if not page.has_operate_permission(request):
        raise PermissionDenied
    verb = VERBS.get(request.GET.get("verb", ""))
    if verb is None:
        return HttpResponseRedirect(reverse("admin:jobs_job_changelist"))
    try:
        jobs, chosen = filtered(page, request)
    except IncorrectLookupParameters:
        return HttpResponseRedirect(f"{reverse('admin:jobs_job_changelist')}?{ERROR_FLAG}=1")
    try:
        below = uuid.UUID(request.GET["below"]) if "below" in request.GET else None
    except ValueError:
        below = None
    form = BulkForm(request.POST or None) if verb.needs_reason else None
    found = preview(jobs, verb, below)
    if request.method == "POST" and (form is None or form.is_valid()):
        done = found.next_go
        act_and_tell(page, request, verb, [job.pk for job in done], form.cleaned_data["reason"] if form else "")
        if found.fit.count > len(done):
            page.message_user(request, "There are more: go on below, or leave it.", messages.INFO)
            following = f"verb={verb.name}&below={done[-1].pk}&{chosen.urlencode()}"
            return HttpResponseRedirect(f"{reverse('admin:jobs_job_bulk')}?{following}")
        return HttpResponseRedirect(f"{reverse('admin:jobs_job_changelist')}?{chosen.urlencode()}")
    return TemplateResponse(
        request,
        "admin/jobs/bulk.html",
        {
            **page.admin_site.each_context(request),
            "opts": page.opts,
            "title": f"{verb.title}: all that match",
            "verb": verb,
            "found": found,
            "shown": found.next_go[:10],
            "go": GO,
            "form": form,
            "filter": ", ".join(f"{name} {value}" for name, value in chosen.items()) or "none: every job",
            "back": f"{reverse('admin:jobs_job_changelist')}?{chosen.urlencode()}",
        },
    )
