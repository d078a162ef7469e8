"""A name for every request, in its answer and in the log."""

import re
import uuid

from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

_GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestIdMiddleware(MiddlewareMixin):
    """Sets `request.request_id` (the caller's X-Request-Id if it is a plain word) and answers with it."""

    def process_request(self, request: HttpRequest) -> None:
        given = request.headers.get("X-Request-Id", "")
        request.request_id = given if _GIVEN.fullmatch(given) else uuid.uuid4().hex

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response.headers["X-Request-Id"] = getattr(request, "request_id", "")
        return response
