"""API keys: issuing and finding them."""

import contextlib
import hashlib
import secrets
from datetime import datetime, timedelta

from django.db import InternalError, OperationalError
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from .models import ApiKey
from .transactions import at_once


def digest(secret: str) -> str:
    """What the row knows of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def issue(owner, name: str, scope: str = "user", *, expires_at: datetime | None = None) -> tuple[ApiKey, str]:
    """Make a key for `owner`. Returns the row and the secret, which is kept nowhere: show it once."""
    secret = "js_" + secrets.token_urlsafe(32)
    row = ApiKey.objects.create(
        owner=owner, name=name, scope=scope, prefix=secret[:9], digest=digest(secret), expires_at=expires_at
    )
    return row, secret


def live() -> QuerySet[ApiKey]:
    """The keys that open something now, with their owners: not revoked, not expired, of active users."""
    in_time = Q(expires_at=None) | Q(expires_at__gt=Now())
    return ApiKey.objects.select_related("owner").filter(in_time, revoked_at=None, owner__is_active=True)


def find(secret: str) -> ApiKey | None:
    """The live key behind a secret, with its owner; None if unknown, revoked, expired or its owner is not active.

    Looked up by its hash, so an unknown and a wrong key take the same path and the same time.
    """
    key = live().filter(digest=digest(secret)).first()
    if key is None:
        return None
    if key.last_used_at is None or key.last_used_at < timezone.now() - timedelta(minutes=1):
        # A read waits for no writer, and is not refused where nothing may be written: the next use tells.
        with contextlib.suppress(OperationalError, InternalError), at_once():
            ApiKey.objects.filter(pk=key.pk).update(last_used_at=Now())
    return key


def revoke(key: ApiKey) -> bool:
    """End a key for good. False if it was revoked before; the first time stays."""
    return bool(ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=Now()))
