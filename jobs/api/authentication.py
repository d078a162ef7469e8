"""API keys as `Authorization: Bearer <key>`; browsers come with a session and its CSRF token."""

import hmac

from django.conf import settings
from django.contrib.auth import get_user_model
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication
from structlog.contextvars import bind_contextvars

from .. import keys, throttles

LONGEST = 200  # characters of a key; ours have 46


class KeyAuthentication(BaseAuthentication):
    """`request.user` is the key's owner, `request.auth` the ApiKey. A wrong, expired or revoked key is a 401."""

    def authenticate(self, request):
        header = request.headers.get("Authorization")
        if header is None:
            return None
        scheme, _, secret = header.partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret or len(secret) > LONGEST:
            raise exceptions.AuthenticationFailed("Send Authorization: Bearer <key>.")
        key = keys.find(secret)
        if key is None:
            throttles.wrong_key(request.META, secret)
            raise exceptions.AuthenticationFailed("The key is unknown, expired or revoked.")
        bind_contextvars(user_id=key.owner_id)
        return key.owner, key

    def authenticate_header(self, request) -> str:
        return "Bearer"


class AdminKeyAuthentication(BaseAuthentication):
    """`X-Admin-Key: <key>`, as the ingestion queue's document has it: an API key, or the value of ADMIN_API_KEY, which
    acts as the oldest active superuser. A wrong key is a 401; what the key's scope allows is asked elsewhere."""

    def authenticate(self, request):
        secret = request.headers.get("X-Admin-Key", "").strip()
        if not secret:
            return None
        key = keys.find(secret) if len(secret) <= LONGEST else None
        if key is not None:
            bind_contextvars(user_id=key.owner_id)
            return key.owner, key
        tried = throttles.attempt(request, "admin-key", "")
        tried.check()
        known = settings.ADMIN_API_KEY
        if not known or not hmac.compare_digest(secret.encode(), known.encode()):
            tried.count()
            raise exceptions.AuthenticationFailed("The key is unknown, expired or revoked.")
        tried.remember()
        admin = get_user_model().objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
        if admin is None:
            raise exceptions.AuthenticationFailed("There is no active superuser for ADMIN_API_KEY to act as.")
        bind_contextvars(user_id=admin.pk)
        return admin, None

    def authenticate_header(self, request) -> str:
        return "X-Admin-Key"


class KeyScheme(OpenApiAuthenticationExtension):
    """How the OpenAPI document names the key."""

    target_class = "jobs.api.authentication.KeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema):
        return {"type": "http", "scheme": "bearer"}
