"""Whether those who watch may still do so: keys end, sessions end, people leave."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db.models.functions import Now
from rest_framework.request import Request

from .. import keys, roles
from ..models import ApiKey


class Credential(NamedTuple):
    """With what somebody came: a key, or a session. `rights` is what it allowed and the password it was made under."""

    user_id: int
    key_id: int | None
    session_key: str | None
    rights: str

    def __repr__(self) -> str:  # the session's key opens everything
        return f"<credential of user {self.user_id}>"


def credential(request: Request) -> Credential:
    """What a request that was let in came with."""
    user = request.user
    if isinstance(request.auth, ApiKey):
        return Credential(user.pk, request.auth.pk, None, request.auth.scope)
    return Credential(user.pk, None, request._request.session.session_key, _rights(user))


def _rights(user) -> str:
    scope = roles.strongest(roles.scopes_of(user))
    return f"{scope}:{hashlib.sha256(user.get_session_auth_hash().encode()).hexdigest()}"


def ended(credentials: Iterable[Credential]) -> set[Credential]:
    """Those that are worth nothing any more, or not the same. Three statements, and one for each of the staff."""
    asked = set(credentials)
    key_ids = {one.key_id for one in asked if one.key_id is not None}
    sessions = {one.session_key for one in asked if one.key_id is None}
    good: set[tuple] = set()
    if key_ids:
        live = keys.live().filter(pk__in=key_ids)
        good |= {(pk, None, scope) for pk, scope in live.values_list("pk", "scope")}
    if sessions:
        open_ones = set(
            Session.objects.filter(session_key__in=sessions, expire_date__gt=Now()).values_list(
                "session_key", flat=True
            )
        )
        users = {one.user_id for one in asked if one.key_id is None}
        rights = {user.pk: _rights(user) for user in get_user_model().objects.filter(pk__in=users, is_active=True)}
        good |= {
            (None, one.session_key, one.rights)
            for one in asked
            if one.session_key in open_ones and rights.get(one.user_id) == one.rights
        }
    return {one for one in asked if one[1:] not in good}
