"""What a list shows as a file: jobs and ledger lines as CSV or JSON, streamed."""

from collections.abc import AsyncIterator, Callable, Iterator

from asgiref.sync import sync_to_async
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, StreamingHttpResponse
from django.utils import timezone

from jobs import export
from jobs.models import Job
from tokens.models import Transaction


def jobs(request: HttpRequest, form: str) -> StreamingHttpResponse:
    """The jobs that the list shows for this address, for who may see jobs."""
    return _answer(request, form, Job, export.jobs)


def ledger(request: HttpRequest, form: str) -> StreamingHttpResponse:
    """The ledger's lines that their list shows for this address, for who may see them."""
    return _answer(request, form, Transaction, export.ledger)


def _answer(
    request: HttpRequest, form: str, model: type[Model], write: Callable[[QuerySet, str], Iterator[str]]
) -> StreamingHttpResponse:
    page = admin.site._registry[model]
    if not page.has_view_permission(request):
        raise PermissionDenied
    if form not in export.FORMATS:
        raise Http404
    request.exports = True  # all that match, however far back
    try:
        rows = page.get_changelist_instance(request).get_queryset(request)
    except IncorrectLookupParameters as error:
        raise Http404 from error
    LogEntry.objects.create(
        user_id=request.user.pk,
        content_type=ContentType.objects.get_for_model(model),
        object_repr=f"all {model._meta.verbose_name_plural} that match",
        action_flag=CHANGE,
        change_message=f"Exported as {form.upper()}. Filter: {request.GET.urlencode()[:200] or 'none'}",
    )
    pieces = write(rows, form)
    # Django collects a plain iterator whole in memory when it serves under ASGI, and an async one under WSGI.
    answer = StreamingHttpResponse(_later(pieces) if isinstance(request, ASGIRequest) else pieces)
    name = f"{model._meta.model_name}s-{timezone.now():%Y%m%d-%H%M%S}.{form}"
    answer.headers["Content-Type"] = export.FORMATS[form]
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    answer.headers["Cache-Control"] = "no-store"
    return answer


async def _later(pieces: Iterator[str]) -> AsyncIterator[str]:
    """In lumps of a hundred rows: a change of threads costs more than a row."""

    def lump() -> str:
        return "".join(piece for piece, _ in zip(pieces, range(100)))  # noqa: B905

    while text := await sync_to_async(lump)():
        yield text
