"""Submit a job: choose a kind, fill in its form with the price beside it, send it."""

import hashlib
import json
import uuid
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST
from rest_framework import serializers
from rest_framework.serializers import ValidationError

from jobs import intake, kinds, lifecycle, queries
from jobs.kinds.base import Kind
from jobs.models import CancelRefund

from ..api.errors import flatten
from ..errors import ErrorCode, Refused
from . import files, forms
from .base import page

UPON_CANCEL = {
    CancelRefund.FULL: "Everything comes back if it fails or you cancel it.",
    CancelRefund.UNUSED: "Everything comes back if it fails; what was not yet worked for if you cancel it.",
    CancelRefund.NONE: "Everything comes back if it fails, or you cancel it before it starts.",
}


class More(serializers.Serializer):
    """What may be asked for besides the params."""

    deadline_minutes = serializers.IntegerField(
        label="Cancel it after … minutes",
        help_text="If it has not ended by then.",
        min_value=1,
        max_value=intake.DEADLINE_MOST // 60,
        required=False,
    )


@page
def new(request: HttpRequest) -> HttpResponse:
    """The kinds to choose from."""
    offered = [(name, kinds.get(name).about()) for name in kinds.names()]
    return render(request, "web/new.html", {"section": "new", "kinds": offered})


@page
def new_kind(request: HttpRequest, kind: str) -> HttpResponse:
    """The form of one kind. A POST submits; its other buttons only change the form, or tell the price."""
    one, made = _form(request, kind)
    more = forms.of(More())
    failed: list[str] = []
    wish = request.POST.get("do", "submit")
    quote: dict[str, Any] = {}
    if request.method == "POST":
        params = _read(request, one, made)
        forms.read(more, request.POST)
        if wish == "submit" and not any(field.errors for field in made):
            try:
                return redirect("web:job", _sell(request, one, params, _deadline(more)).pk)
            except (Refused, ValidationError) as error:
                failed = _tell([*made, *more], error)
        elif wish == "price":
            quote, failed = _quote(request, one, params, made)
        if not quote:
            quote, _ = _quote(request, one, params)
    else:
        if like := request.GET.get("like"):
            _fill_like(request, one, made, like)
        quote, _ = _quote(request, one, _read_back(one, made, request))
    files.offer(request.user, made)
    context = {
        "section": "new",
        "kind": one,
        "told": one.about(),
        "fields": made,
        "more": more,
        "more_open": any(field.value or field.errors for field in more),
        "failed": failed,
        "wrong": [field for field in [*made, *more] if field.errors],
        "key": uuid.uuid4().hex if request.method != "POST" or failed else request.POST.get("key", "")[:64],
        **quote,
    }
    return render(request, "web/new_kind.html", context)


@page
@require_POST
def price(request: HttpRequest, kind: str) -> HttpResponse:
    """What the job would cost as the form stands; for htmx. Nothing is written."""
    one, made = _form(request, kind)
    quote, _ = _quote(request, one, _read(request, one, made))
    return render(request, "web/price.html", quote)


def _form(request: HttpRequest, name: str) -> tuple[Kind, list[forms.Field]]:
    if name not in kinds.names():
        raise Refused(ErrorCode.not_found)
    one = kinds.get(name)
    return one, forms.fields(one, operator=request.user.is_superuser)


def _read(request: HttpRequest, one: Kind, made: list[forms.Field]) -> dict[str, Any]:
    """The params as typed, with the files that came along and what the buttons of a list did."""
    forms.read(made, request.POST)
    files.bring(request, made)
    wish = request.POST.get("do", "")
    files.rearrange(made, wish, request.POST.get(f"{wish.removeprefix('add:')}:add", ""))
    return _read_back(one, made, request)


def _read_back(one: Kind, made: list[forms.Field], request: HttpRequest) -> dict[str, Any]:
    """The params as the fields show them."""
    fixed = {} if request.user.is_superuser else one.fixed
    return forms.params(made) | fixed


def _fill_like(request: HttpRequest, one: Kind, made: list[forms.Field], job_id: str) -> None:
    try:
        earlier = queries.jobs_for(request.user).filter(pk=uuid.UUID(job_id), kind=one.name).first()
    except ValueError:
        return
    if earlier:
        forms.fill_all(made, earlier.params)


def _deadline(more: list[forms.Field]) -> int | None:
    """Seconds until the job is cancelled if it has not ended. ValidationError for what cannot be one."""
    asked = More(data=forms.params(more))
    asked.is_valid(raise_exception=True)
    minutes = asked.validated_data.get("deadline_minutes")
    return minutes and minutes * 60


def _sell(request: HttpRequest, one: Kind, params: dict[str, Any], deadline: int | None):
    """The job, sold once however often this form is sent."""
    checked = intake.checked_params(one, params)
    key = request.POST.get("key", "")
    key = f"page:{key}" if key.isalnum() and key.isascii() and len(key) <= 64 else None
    intake.check_room(request.user.pk, one, key=key)
    body = json.dumps([one.name, params, deadline], sort_keys=True)
    job, _ = lifecycle.submit(
        request.user.pk,
        one.name,
        checked,
        key=key,
        body_hash=hashlib.sha256(body.encode()).hexdigest(),
        deadline_seconds=deadline,
    )
    return job


def _quote(
    request: HttpRequest, one: Kind, params: dict[str, Any], made: list[forms.Field] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """What `price.html` shows, and what was wrong and fits to no field; `made` to have errors told there."""
    try:
        checked = intake.checked_params(one, params)
        cost, refund = intake.quote(request.user.pk, one, checked)
    except (Refused, ValidationError) as error:
        return {"cost": None}, _tell(made, error) if made is not None else []
    has = queries.balance(request.user.pk)
    return {
        "cost": cost,
        "missing": max(0, cost - has),
        "left_over": has - cost,
        "rule": UPON_CANCEL[CancelRefund(refund)] if cost else "",
    }, []


def _tell(made: list[forms.Field], error: Refused | ValidationError) -> list[str]:
    """Put what was wrong at the fields; returns the rest as sentences."""
    if isinstance(error, ValidationError):
        return forms.tell(made, flatten(error.detail))
    if error.fields:
        return forms.tell(made, error.fields)
    if error.code is ErrorCode.idempotency_key_reused:
        return ["This form was sent before and made a job, which is among your jobs. Send it again for another one."]
    return [f"{error.detail} {error.code.row.advice}"]
