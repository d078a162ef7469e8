"""What is asked of a request before a job is sold: exact params, a price in bounds, room for one more job."""

import sys
from typing import Any

from django.conf import settings
from rest_framework import serializers

from . import artifacts, inputs, kinds, policies, policy, queries
from .engines import ffmpeg, own_user, process
from .errors import ErrorCode, Refused
from .kinds.base import Kind

PRICE_MOST = 1_000_000  # whole tokens
DEADLINE_LEAST, DEADLINE_MOST = 5, 7 * 86_400  # seconds, of what may be asked for


def kind_named(name: str) -> Kind:
    """The kind of that name; Refused(invalid_request) naming those that there are."""
    try:
        return kinds.get(name)
    except KeyError:
        detail = f"There is no such kind; there are {', '.join(kinds.names())}."
        raise Refused(ErrorCode.invalid_request, detail, fields=[("kind", "unknown_kind", detail)]) from None


def checked_params(kind: Kind, params: dict[str, Any]) -> dict[str, Any]:
    """Validated params with their defaults. ValidationError names every field at fault, unknown ones too."""
    fields = kind.Params(data=params)
    wrong = {"params": strict_errors(fields, params)} if isinstance(params, dict) else {}
    if not fields.is_valid():
        wrong["params"] = fields.errors | wrong.get("params", {})
    if wrong.get("params"):
        raise serializers.ValidationError(wrong)
    return dict(fields.validated_data)


def strict_errors(serializer: serializers.Serializer, data: dict[str, Any]) -> dict[str, list]:
    """What DRF lets through: unknown names, and texts or booleans where a number is asked ("1_0", true)."""
    known = {name: field for name, field in serializer.fields.items() if not field.read_only}
    wrong = {}
    for name, value in data.items():
        if name not in known:
            wrong[name] = [serializers.ErrorDetail("There is no such field.", "unknown_field")]
        elif error := _mistyped(known[name], value):
            wrong[name] = [serializers.ErrorDetail(error, "invalid")]
    return wrong


def _mistyped(field: serializers.Field, value: Any) -> str:
    if value is None:
        return ""  # `allow_null` decides
    if isinstance(field, (serializers.IntegerField, serializers.FloatField)):
        return "" if isinstance(value, (int, float)) and not isinstance(value, bool) else "Must be a number."
    if isinstance(field, serializers.BooleanField):
        return "" if isinstance(value, bool) else "Must be true or false."
    if isinstance(field, serializers.CharField):
        return "" if isinstance(value, str) else "Must be text."
    if isinstance(field, serializers.ListField) and isinstance(value, list):
        return next(filter(None, (_mistyped(field.child, item) for item in value[:1000])), "")
    return ""


def price_of(kind: Kind, params: dict[str, Any], sizes: dict[str, int] | None = None) -> int:
    """The price of validated params in whole tokens, as the kind's policy scales it; with its inputs' sizes (bytes by
    reference) once they are known. Refused(invalid_request) outside of 0 to 1,000,000."""
    try:
        price = kind.price(params) + kind.price_of_inputs(sizes or {})
    except (OverflowError, ValueError) as error:
        raise _unpriceable() from error
    if type(price) is int:
        price = policy.price(price, policies.rule(kind.name, kind.tier(params)))
    if type(price) is not int or not 0 <= price <= PRICE_MOST:
        raise _unpriceable()
    return price


def _unpriceable() -> Refused:
    detail = f"A job may cost at most {PRICE_MOST} tokens; ask for less in one job."
    return Refused(ErrorCode.invalid_request, detail, fields=[("params", "price_out_of_range", detail)])


def quote(owner_id: int, kind: Kind, params: dict[str, Any]) -> tuple[int, str]:
    """(whole tokens that a job of validated `params` would cost the user, the CancelRefund that it would be sold with).

    Refused as its submit would be for its inputs or its price. Nothing is written.
    """
    tokens = price_of(kind, params, inputs.sizes(inputs.resolve(owner_id, kind, params)))
    return tokens, policies.rule(kind.name, kind.tier(params)).cancel_refund


def check_room(owner_id: int, kind: Kind, *, key: str | None = None) -> None:
    """Refused if the user has too many jobs or sends too fast (429), the disk is full (507), or this host may not
    run the kind (503). Many requests at once may pass together: these are brakes, not money. A `key`
    (Idempotency-Key) that is known asks for no room: it makes nothing new."""
    if key and queries.knows_key(owner_id, key):
        return
    own = settings.JOBSITE
    if queries.submitted_since(owner_id, 1.0, own["SUBMITS_PER_SECOND"]) >= own["SUBMITS_PER_SECOND"]:
        detail = f"At most {own['SUBMITS_PER_SECOND']} jobs may be submitted a second."
        raise Refused(ErrorCode.rate_limited, detail, retry_after=1.0)
    if queries.active(owner_id, own["JOBS_PER_USER"]) >= own["JOBS_PER_USER"]:
        detail = f"At most {own['JOBS_PER_USER']} of your jobs may be active at once."
        raise Refused(ErrorCode.too_many_jobs, detail, retry_after=10.0)
    check_disk()
    if kind.media:
        check_walls()


def check_disk(needed: int = 0) -> None:
    """Refused(storage_full) if less than DISK_FREE_BYTES would be left after `needed` bytes."""
    if artifacts.free_bytes() - needed < settings.JOBSITE["DISK_FREE_BYTES"]:
        raise Refused(ErrorCode.storage_full, retry_after=60.0)


def wall_gaps() -> list[str]:
    """What this host does not allow of the walls around users' media, for the operator. Only what `check_walls` asks
    for keeps media out in production; the rest is told."""
    wanted = settings.JOBSITE["FFMPEG"]
    gaps = process.gaps([ffmpeg.bundled() if wanted == "bundled" else wanted, sys.executable])
    return gaps if own_user.kept_from(str(settings.HOME)) else [*gaps, "a closed JOBSITE_HOME (others may read it)"]


def check_walls() -> None:
    """Refused(sandbox_missing) where production would read users' media without its walls."""
    required = settings.PRODUCTION and settings.JOBSITE["MEDIA_WALLS"] == "required"
    if required and (missing := process.walls().missing):
        raise Refused(ErrorCode.sandbox_missing, f"This host lacks {', '.join(missing)}.", retry_after=300.0)
