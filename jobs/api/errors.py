"""The one translator from what is raised to what is answered: `application/problem+json` (RFC 9457), nothing else.

`docs` of a problem leads to its row in the table of `jobs.errors`, served at /api/docs/errors/.
"""

import logging
import math
from itertools import islice
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.http import Http404, HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.views import defaults
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import set_rollback

from ..errors import ErrorCode, JobError, Refused
from ..transactions import GONE, let_go

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
WAITING_HELPS = {429, 502, 503, 504, 507}
RETRY_AFTER = 5.0  # seconds, where the refusal itself knows nothing better
MOST_ERRORS, TEXT_LONGEST = 100, 500  # errors in one answer, and characters of what each says


def docs_url(code: str) -> str:
    """Where a code is explained."""
    return f"{settings.SITE_URL}/api/docs/errors/#{code}"


def problem(
    code: ErrorCode, detail: str = "", *, http: int | None = None, fields=(), request_id: str = ""
) -> dict[str, Any]:
    """The body of an error answer. `fields` are (name, code, detail) of what was wrong in the request."""
    http = http or code.row.http
    return {
        "type": docs_url(code.name),
        "title": code.row.sentence,
        "status": http,
        "detail": detail or code.row.sentence,
        "code": code.name,
        "errors": [dict(zip(("field", "code", "detail"), map(str, field), strict=True)) for field in fields],
        "request_id": request_id,
        "retryable": code.row.retryable or http in WAITING_HELPS,
        "docs": docs_url(code.name),
    }


def handle(error: Exception, context: dict[str, Any]) -> Response:
    """DRF's exception handler: every exception of a view becomes a problem. A 500 says nothing of its cause."""
    refused = _refused(error)
    if refused is None:
        log.error("Request %s failed", request_id(context["request"]), exc_info=error)
        refused = Refused(ErrorCode.internal_error)
    if isinstance(error, GONE):
        let_go(error)
    set_rollback()
    http = error.status_code if isinstance(error, exceptions.APIException) else refused.code.row.http
    body = problem(
        refused.code, refused.detail, http=http, fields=refused.fields, request_id=request_id(context["request"])
    )
    return Response(body, status=http, headers=headers_of(http, refused), content_type=MEDIA_TYPE)


def headers_of(http: int, refused: Refused) -> dict[str, str]:
    """The headers that go with a refusal: who to be, or when to come again."""
    if http == status.HTTP_401_UNAUTHORIZED:
        return {"WWW-Authenticate": "Bearer"}
    if http in (429, 503, 507):
        return {"Retry-After": str(max(1, math.ceil(refused.retry_after or RETRY_AFTER)))}
    return {}


_BY_STATUS = {
    400: ErrorCode.invalid_request,
    401: ErrorCode.not_authenticated,
    403: ErrorCode.permission_denied,
    404: ErrorCode.not_found,
    405: ErrorCode.method_not_allowed,
    406: ErrorCode.not_acceptable,
    413: ErrorCode.too_large,
    415: ErrorCode.unsupported_media_type,
    429: ErrorCode.rate_limited,
}


def _refused(error: Exception) -> Refused | None:
    """What `error` means to the caller; None if it is a fault of ours."""
    match error:
        case Refused():
            return error
        case JobError():
            return Refused(error.code, error.message)
        case exceptions.ValidationError():
            fields = list(islice(flatten(error.detail), MOST_ERRORS))
            return Refused(ErrorCode.invalid_request, _in_one_sentence(fields), fields=fields)
        case exceptions.APIException():
            code = _BY_STATUS.get(error.status_code)
            return code and Refused(code, str(error.detail), retry_after=getattr(error, "wait", None))
        case Http404():
            return Refused(ErrorCode.not_found)
        case PermissionDenied():
            return Refused(ErrorCode.permission_denied)
        case RequestDataTooBig():
            return Refused(ErrorCode.too_large)
        case SuspiciousOperation():
            return Refused(ErrorCode.invalid_request)
        case _ if isinstance(error, GONE):
            return Refused(ErrorCode.database_unavailable)
    return None


def flatten(detail: Any, name: str = ""):
    """(field, code, detail) of every error in DRF's nested detail; names like `params.clips.0`."""
    if isinstance(detail, dict):
        for key, inner in detail.items():
            own = "" if key == "non_field_errors" else str(key)
            yield from flatten(inner, f"{name}.{own}".strip("."))
    elif isinstance(detail, list):
        for index, inner in enumerate(detail):
            nested = isinstance(inner, (dict, list))
            if inner:
                yield from flatten(inner, f"{name}.{index}".strip(".") if nested else name)
    else:
        yield name[:TEXT_LONGEST], getattr(detail, "code", "invalid"), str(detail)[:TEXT_LONGEST]  # they quote the body


def _in_one_sentence(fields: list[tuple[str, str, str]]) -> str:
    first = fields[0] if fields else ("", "", "")
    return f"{first[0]}: {first[2]}" if first[0] else first[2]


# --- what happens outside of views ---------------------------------------------------------------------------------


def request_id(request: Any) -> str:
    """The id that this request's log lines and answers carry; set by the middleware."""
    return getattr(request, "request_id", "")


def answer(request: HttpRequest, code: ErrorCode, detail: str = "") -> JsonResponse:
    """A problem as a plain Django response."""
    body = problem(code, detail, request_id=request_id(request))
    return JsonResponse(
        body, status=code.row.http, content_type=MEDIA_TYPE, headers=headers_of(code.row.http, Refused(code))
    )


def is_api(request: HttpRequest) -> bool:
    return request.path.startswith("/api/") or request.path in ("/api", "/health", "/livez", "/readyz")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """handler400: JSON under /api/."""
    return answer(request, ErrorCode.invalid_request) if is_api(request) else defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """handler403: JSON under /api/."""
    if is_api(request):
        return answer(request, ErrorCode.permission_denied)
    return defaults.permission_denied(request, exception)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """handler404: JSON under /api/."""
    return answer(request, ErrorCode.not_found) if is_api(request) else defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """handler500: JSON under /api/."""
    return answer(request, ErrorCode.internal_error) if is_api(request) else defaults.server_error(request)
