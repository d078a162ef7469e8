"""What every page's view is wrapped in: `page` for what shows, `action` for what does something."""

import math
from collections.abc import Callable
from functools import wraps

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_POST

from ..errors import ErrorCode, Refused
from ..transactions import let_go

View = Callable[..., HttpResponse]
TOO_LONG = "The database gave up after 30 seconds. Ask for less: filter the list by status, kind or time."
RETRY_AFTER = 5.0  # seconds, where the refusal itself knows nothing better


def page(view: View) -> View:
    """A page for signed-in users, never kept by a shared cache; 404 for what is not there or not theirs. What else is
    raised is RefusalMiddleware's."""

    shown = login_required(cache_control(private=True, no_cache=True)(view))

    @wraps(view)
    def answer(request: HttpRequest, *args, **kwargs) -> HttpResponse:
        try:
            return shown(request, *args, **kwargs)
        except Refused as refused:
            if refused.code is ErrorCode.not_found:
                raise Http404 from refused
            raise

    return answer


def action(back: str, *, takes_id: bool = False) -> Callable[[View], View]:
    """A button: POST, then a redirect to the page `back` (a route of `web`, with the same arguments if `takes_id`).

    A view that answers something itself goes elsewhere. What is refused is told there in words.
    """

    def wrap(view: View) -> View:
        @wraps(view)
        def answer(request: HttpRequest, **kwargs) -> HttpResponse:
            try:
                answered = view(request, **kwargs)
            except Refused as refused:
                if refused.code is ErrorCode.not_found:
                    raise
                messages.error(request, in_words(refused))
                answered = None
            return answered or redirect(f"web:{back}", **(kwargs if takes_id else {}))

        return page(require_POST(answer))

    return wrap


def in_words(refused: Refused) -> str:
    """What was refused and what to do, for a message."""
    return f"{refused.detail} {refused.code.row.advice}"


def unavailable(request: HttpRequest, error: Exception) -> HttpResponse:
    """A page in place of one that the database did not give: it is away, or was at it for longer than it may."""
    let_go(error)
    detail = TOO_LONG if type(error.__cause__).__name__ == "QueryCanceled" else ""
    return problem(request, Refused(ErrorCode.database_unavailable, detail))


def problem(request: HttpRequest, refused: Refused) -> HttpResponse:
    """A page in place of the one asked for. It reads nothing from the database."""
    answer = render(request, "web/problem.html", {"refused": refused}, status=refused.code.row.http)
    answer["Cache-Control"] = "no-store"
    if answer.status_code in (429, 503, 507):
        answer["Retry-After"] = str(max(1, math.ceil(refused.retry_after or RETRY_AFTER)))
    return answer
