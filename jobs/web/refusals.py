"""What no view of a page answered: a refusal, at a sign-in say, and a database that is away."""

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

from ..api.errors import is_api
from ..errors import Refused
from ..transactions import GONE
from .base import problem, unavailable


class RefusalMiddleware(MiddlewareMixin):
    """Either becomes a page that says why; the API answers its own."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if isinstance(exception, GONE) and not is_api(request) and not connection.in_atomic_block:
            return unavailable(request, exception)
        return problem(request, exception) if isinstance(exception, Refused) else None
