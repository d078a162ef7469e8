"""A name for every request, in its answer and in the log."""

import contextlib
import re
import uuid

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin
from structlog.contextvars import bind_contextvars, clear_contextvars

from jobsite import tracing

_GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestIdMiddleware(MiddlewareMixin):
    """Sets `request.request_id` (the caller's X-Request-Id if it is a plain word) and answers with it."""

    def process_request(self, request: HttpRequest) -> None:
        given = request.headers.get("X-Request-Id", "")
        request.request_id = given if _GIVEN.fullmatch(given) else uuid.uuid4().hex
        clear_contextvars()  # a thread's last request may have ended in an error
        bind_contextvars(request_id=request.request_id)
        session = settings.SESSION_COOKIE_NAME
        if "\0" in request.COOKIES.get(session, ""):  # quoted, it may come; PostgreSQL cannot be asked for it
            del request.COOKIES[session]
        request.span = tracing.begin(f"{request.method} request", request_id=request.request_id)

    def process_view(self, request: HttpRequest, *_) -> None:
        """For a browser's session, read by now or soon; a key's owner is bound where the key is known."""
        if settings.SESSION_COOKIE_NAME not in request.COOKIES:
            return
        with contextlib.suppress(DatabaseError, InterfaceError):  # the view meets the same, and answers it
            if user_id := request.session.get(SESSION_KEY):
                bind_contextvars(user_id=int(user_id))

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response.headers["X-Request-Id"] = getattr(request, "request_id", "")
        route = getattr(request.resolver_match, "route", "")  # not the path: ids would make as many names
        tracing.end(getattr(request, "span", None), route=route, status=response.status_code)
        return response
