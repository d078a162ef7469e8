"""The SQL views of jobs.sql_views as pages to read, for who has no database client at hand."""

from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse
from unfold.admin import ModelAdmin

from jobs.sql_views import VIEWS

LINES = 50  # of a page
LAST = 200  # pages: behind them, a database client is the better tool


def view(page: ModelAdmin, request: HttpRequest, name: str) -> TemplateResponse:
    """One page of the view `name`, as the database orders it."""
    if not page.has_view_permission(request):
        raise PermissionDenied
    if name not in VIEWS:
        raise Http404
    asked = request.GET.get("p", "1")
    number = min(int(asked), LAST) if asked.isdecimal() and 0 < len(asked) < 6 else 1
    number = max(number, 1)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {name} LIMIT %s OFFSET %s", [LINES + 1, (number - 1) * LINES])  # noqa: S608 - ours
        names, rows = [column[0] for column in cursor.description], cursor.fetchall()
    return TemplateResponse(
        request,
        "admin/jobs/sql_view.html",
        {
            **page.admin_site.each_context(request),
            "opts": page.opts,
            "title": f"SQL view {name}",
            "table": {"headers": names, "rows": [[_short(value) for value in row] for row in rows[:LINES]]},
            "views": list(VIEWS),
            "name": name,
            "number": number,
            "more": len(rows) > LINES and number < LAST,
        },
    )


def _short(value) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:119]}…"
