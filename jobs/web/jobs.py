"""The list of one's jobs. A filter is an address."""

from datetime import datetime
from functools import cache
from typing import Any

from django.shortcuts import render
from django.utils import timezone
from rest_framework import serializers

from jobs import kinds, queries
from jobs.kinds.base import InputField
from jobs.models import Job, Status
from jobs.search import HELP, search_in
from jobs.words import span

from ..errors import Refused
from .base import page
from .paging import Pages

ABOUT_LONGEST = 90  # characters


@page
def jobs(request):
    """One's jobs, newest first, by status, kind and words; a status or kind that is not there filters nothing."""
    chosen = {"status": request.GET.get("status", ""), "kind": request.GET.get("kind", "")}
    options = {"status": Status.choices, "kind": [(name, name) for name in kinds.names()]}
    found, text, wrong = queries.jobs_for(request.user), request.GET.get("search", "").strip(), ""
    try:
        found = search_in(found, text, among=found)
    except Refused as refused:
        found, wrong = found.none(), refused.detail
    for name, value in chosen.items():
        if value in dict(options[name]):
            found = found.filter(**{name: value})
    pages = Pages(found, request)
    costs = queries.costs(pages.rows)
    rows = [(job, about(job), costs[job.pk], ago(job.created_at)) for job in pages.rows]
    context = {
        "section": "jobs",
        "pages": pages,
        "rows": rows,
        "chosen": chosen,
        "options": options,
        "search": text,
        "wrong": wrong,
        "words": HELP,
    }
    return render(request, "web/jobs.html", context)


def ago(at: datetime) -> str:
    """`just now`, `42 s ago`, `3 h ago`."""
    seconds = (timezone.now() - at).total_seconds()
    return "just now" if seconds < 10 else f"{span(seconds)} ago"


@cache
def _texts(kind: str) -> dict[str, Any]:
    """The params of a kind that are free texts, no choices and no files, with their defaults."""
    fields = kinds.get(kind).Params().fields if kind in kinds.names() else {}
    return {
        name: field.default
        for name, field in fields.items()
        if isinstance(field, serializers.CharField) and not isinstance(field, InputField)
    }


def about(job: Job) -> str:
    """What tells this job from its neighbours: its first text that is no choice, else how many files it works on."""
    texts = _texts(job.kind)
    given = [(name, value) for name, value in job.params.items() if isinstance(value, str)]  # an import brings anything
    own = [value for name, value in given if name in texts and value not in ("", texts[name])]
    if own:
        return own[0][:ABOUT_LONGEST] + ("…" if len(own[0]) > ABOUT_LONGEST else "")
    files = sum(len(value) for value in job.params.values() if isinstance(value, list))
    return f"{files} files" if files else ""
