"""API keys: issuing and finding them."""

import hashlib
import secrets
from datetime import datetime, timedelta

from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from .models import ApiKey


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def issue(owner, name: str, scope: str = "user", *, expires_at: datetime | None = None) -> tuple[ApiKey, str]:
    """Make a key for `owner`. Returns the row and the secret, which is kept nowhere: show it once."""
    secret = "js_" + secrets.token_urlsafe(32)
    row = ApiKey.objects.create(
        owner=owner, name=name, scope=scope, prefix=secret[:9], digest=_digest(secret), expires_at=expires_at
    )
    return row, secret


def find(secret: str) -> ApiKey | None:
    """The live key behind a secret, with its owner; None if unknown, revoked, expired or its owner is not active.

    Looked up by its hash, so an unknown and a wrong key take the same path and the same time.
    """
    alive = Q(expires_at=None) | Q(expires_at__gt=Now())
    key = ApiKey.objects.select_related("owner").filter(alive, digest=_digest(secret), revoked_at=None).first()
    if key is None or not key.owner.is_active:
        return None
    if key.last_used_at is None or key.last_used_at < timezone.now() - timedelta(minutes=1):
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=Now())  # asked first: a read must not wait for a writer
    return key


def revoke(key: ApiKey) -> bool:
    """End a key for good. False if it was revoked before; the first time stays."""
    return bool(ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=Now()))
