"""/metrics for Prometheus: open to this host, elsewhere by METRICS_TOKEN."""

from secrets import compare_digest

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client.exposition import choose_encoder

from .. import metrics as collected
from ..engines.outbound import is_loopback
from ..errors import ErrorCode
from .errors import answer

PROXIED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")
_registry = collected.registry()


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """The platform's figures, in the format that the caller accepts. 401 without the token."""
    if not (_knows_token(request) or _is_here(request)):
        return answer(request, ErrorCode.not_authenticated, "Send Authorization: Bearer <METRICS_TOKEN>.")
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(_registry), content_type=content_type, headers={"Cache-Control": "no-store"})


def _knows_token(request: HttpRequest) -> bool:
    token = settings.JOBSITE["METRICS_TOKEN"]
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return bool(token) and scheme.lower() == "bearer" and compare_digest(given.strip().encode(), token.encode())


def _is_here(request: HttpRequest) -> bool:
    """Whether the caller is a program of this host. Never in production, nor with a proxy's header: behind a proxy of
    this host everybody's address is this host's."""
    if settings.PRODUCTION or any(name in request.headers for name in PROXIED):
        return False
    return is_loopback(request.META.get("REMOTE_ADDR", ""))  # a unix socket has no address
