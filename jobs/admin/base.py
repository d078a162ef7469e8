"""What the operator's pages share: rows that are only read, and how times, shares and tables are shown."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin import ShowFacets
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.auth.models import User
from django.db.models import Case, IntegerField, OuterRef, QuerySet, Subquery, When
from django.db.models.functions import Cast, Coalesce, Substr
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import DropdownFilter, RangeDateTimeFilter
from unfold.forms import BaseDialogForm
from unfold.utils import parse_datetime_str
from unfold.widgets import UnfoldAdminTextInputWidget

from jobs.models import Job, Status
from jobs.words import span as span  # pages know one place
from tokens.admin import ReadOnly as PlainReadOnly

WAITS = "WAITING"  # QUEUED or RETRY: what the first screen counts as waiting
STATUS_LABELS = {
    Status.QUEUED: "info",
    Status.RUNNING: "primary",
    Status.RETRY: "warning",
    Status.SUCCEEDED: "success",
    Status.FAILED: "danger",
    Status.CANCELED: "default",
}


class ReadOnly(PlainReadOnly):
    """Rows are only read. Who has the model's change permission may run the page's actions ("operate").

    Lists sort by their key alone: that is an index.
    """

    list_per_page = 25
    list_disable_select_all = True
    list_filter_submit = True
    sortable_by = ()
    show_facets = ShowFacets.NEVER  # they count, too

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """In an address anything may be asked of a row's own fields, but no pattern that never ends on a text."""
        return not lookup.endswith("regex") and super().lookup_allowed(lookup, value, request)

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")


class Audited(ModelAdmin):
    """Rows that are edited here: the history says what each field was and is, never a password."""

    def construct_change_message(self, request, form, formsets, add=False):
        if add or not isinstance(form, forms.ModelForm):
            return super().construct_change_message(request, form, formsets, add)
        names = [name for name in form.changed_data if "password" not in name]
        told = [f"{name}: {_told(form.initial.get(name))} → {_told(form.cleaned_data.get(name))}" for name in names]
        return "; ".join(told) or "Nothing was changed."


def _told(value: Any) -> str:
    """A field's value in the history; rows by their keys, before as after."""
    if isinstance(value, (list, tuple, QuerySet)):
        return ", ".join(sorted(str(getattr(row, "pk", row)) for row in value)) or "none"
    text = str(getattr(value, "pk", value))
    return "none" if value is None or text == "" else text[:200]


def by_name(rows: QuerySet) -> QuerySet:
    """The same rows, each with `asked_by`: its `by` as `who` wrote it, a person's by name."""
    people = User.objects.filter(pk=Cast(Substr(OuterRef("by"), 6), IntegerField())).values("username")
    named = When(by__startswith="user:", then=Coalesce(Subquery(people), "by"))
    return rows.annotate(asked_by=Case(named, default="by"))


class NamesWho(ModelAdmin):
    """Rows that keep who asked for them show it as `asked_by`."""

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return by_name(super().get_queryset(request))

    @admin.display(description="By")
    def asked_by(self, row: Any) -> str:
        return row.asked_by


class ReadOnlyInline(TabularInline):
    """Related rows, to read."""

    has_add_permission = has_change_permission = has_delete_permission = lambda self, request, obj=None: False
    extra = 0
    hide_title = True
    per_page = 50


class FieldFilter(DropdownFilter):
    """Rows whose `parameter_name` has one of `options()`'s values; the address carries the field's plain name."""

    def options(self) -> Iterable[str]:
        raise NotImplementedError

    def lookups(self, request, model_admin):
        return [(value, value) for value in self.options()]

    def queryset(self, request, queryset):
        return queryset.filter(**{self.parameter_name: self.value()}) if self.value() else queryset


class TimeFilter(RangeDateTimeFilter):
    """Between two moments, in UTC; a date without a time means that whole day."""

    def queryset(self, request, queryset):
        for end, lookup, clock in (("from", "gte", "00:00:00"), ("to", "lte", "23:59:59.999999")):
            day, time = (self.used_parameters.get(f"{self.parameter_name}_{end}_{part}") for part in (0, 1))
            if not day:
                continue
            moment = parse_datetime_str(f"{day} {time or clock}")
            if moment is None:
                raise IncorrectLookupParameters
            queryset = queryset.filter(**{f"{self.parameter_name}__{lookup}": timezone.make_aware(moment)})
        return queryset


class SureForm(BaseDialogForm):
    """A question before an action; submitting it is the answer."""


class ReasonForm(BaseDialogForm):
    """The same, for an action that needs a reason. The owner reads it."""

    reason = forms.CharField(
        max_length=1000, widget=UnfoldAdminTextInputWidget, help_text="The job's owner will read this."
    )


def question(title: str, text: str, *, yes: str, form: type[BaseDialogForm] = SureForm) -> dict:
    """A dialog for an action: it is shown on GET, and only its POST (with CSRF token) acts."""
    return {"title": title, "description": text, "form_class": form, "form_submit_text": yes}


def leave_dialog(url_name: str, *args: Any) -> HttpResponse:
    """The answer to a dialog's POST: the browser goes on to another page of the admin."""
    return HttpResponse(headers={"HX-Redirect": reverse(f"admin:{url_name}", args=args)})


def who(request: HttpRequest) -> str:
    """How events and reports name the person behind a request."""
    return f"user:{request.user.pk}"


def when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else "–"


def ago(moment: datetime | None) -> str:
    return f"{span((timezone.now() - moment).total_seconds())} ago" if moment else "–"


def size(count: int) -> str:
    """Bytes for people, in powers of 1024."""
    value, units = float(count), ["bytes", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "bytes" else f"{value:.1f} {units[0]}"


def one_line(text: str) -> SafeString:
    return format_html('<span style="white-space: nowrap">{}</span>', text)


def bar(share: float) -> SafeString:
    """A progress bar of 0.0 to 1.0 with its percentage."""
    percent = round(100 * share)
    drawn = render_to_string("unfold/components/progress.html", {"items": [{"value": percent}]})
    return format_html('<div style="min-width: 5rem">{}<small>{} %</small></div>', drawn, percent)


def label(text: str, kind: str = "default") -> SafeString:
    return render_to_string("unfold/helpers/label.html", {"text": text, "type": kind})


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> SafeString:
    """A table whose cells are escaped unless they are safe already."""
    return render_to_string("unfold/components/table.html", {"table": {"headers": headers, "rows": list(rows)}})


def short(pk: Any) -> str:
    """An id that fits a column: its beginning is its time, its end is random, so both are kept."""
    return f"{str(pk)[:8]}…{str(pk)[-4:]}"


def job_link(job_id: Any) -> SafeString:
    return format_html(
        '<a href="{}" class="text-link" style="white-space: nowrap" title="{}">{}</a>',
        reverse("admin:jobs_job_change", args=[job_id]),
        job_id,
        short(job_id),
    )


def status_label(job: Job) -> SafeString:
    return label(job.status, STATUS_LABELS[job.status])
