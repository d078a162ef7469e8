"""API keys as `Authorization: Bearer <key>`; browsers come with a session and its CSRF token."""

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication

from .. import keys

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
            raise exceptions.AuthenticationFailed("The key is unknown, expired or revoked.")
        return key.owner, key

    def authenticate_header(self, request) -> str:
        return "Bearer"


class KeyScheme(OpenApiAuthenticationExtension):
    """How the OpenAPI document names the key."""

    target_class = "jobs.api.authentication.KeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema):
        return {"type": "http", "scheme": "bearer"}
