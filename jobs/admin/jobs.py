"""The job list and one job's page: what happened, attempt by attempt, what it cost, what came out."""

from functools import partial

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import action
from unfold.enums import ActionVariant

from jobs import kinds, queries, roles
from jobs.errors import ErrorCode, Refused
from jobs.explain import Explanation, explain
from jobs.models import FINAL, Artifact, Job, LogLine, Scope, Status
from jobs.search import HELP, LOOKED_AT, needs_bound, newest, search

from . import bulk, exports, views
from .actions import CANCEL, FAIL, RETRY, Verb, act_and_tell, ask_then_act
from .base import (
    STATUS_LABELS,
    WAITS,
    FieldFilter,
    ReadOnly,
    ReadOnlyInline,
    ReasonForm,
    TimeFilter,
    ago,
    bar,
    label,
    leave_dialog,
    one_line,
    question,
    short,
    size,
    span,
    status_label,
    table,
    when,
)
from .cleanup import CleanupForm, dry_run, dry_run_from_board


class StatusFilter(FieldFilter):
    """Besides each status all that waits, which is how the first screen counts it."""

    title, parameter_name = "status", "status"
    options = staticmethod(lambda: [WAITS, *Status.values])

    def queryset(self, request, queryset):
        return (
            queryset.filter(run_after__isnull=False) if self.value() == WAITS else super().queryset(request, queryset)
        )


class KindFilter(FieldFilter):
    title, parameter_name = "kind", "kind"
    options = staticmethod(kinds.names)


class QueueFilter(FieldFilter):
    title, parameter_name = "queue", "queue"
    options = staticmethod(kinds.queues)


class ErrorFilter(FieldFilter):
    title, parameter_name = "error code", "error_code"
    options = staticmethod(lambda: [code.name for code in ErrorCode])


class OutputInline(ReadOnlyInline):
    """What the job published."""

    model = Artifact
    verbose_name_plural = "outputs"
    fields = readonly_fields = ["download", "content_type", "size", "attempt", "sha256", "stored", "state"]

    def get_formset(self, request: HttpRequest, obj: Job | None = None, **kwargs):
        """An inline is made for each request, so it may know who asks: without a role the API gives them nothing."""
        self.may_download = roles.strongest(roles.scopes_of(request.user)) != Scope.USER
        return super().get_formset(request, obj, **kwargs)

    @admin.display(description="Output")
    def download(self, output: Artifact) -> SafeString | str:
        if not self.may_download:
            return output.name
        address = reverse("job-output", args=[output.job_id, output.name])
        return format_html('<a href="{}" class="text-link">{}</a>', address, output.name)

    def size(self, output: Artifact) -> str:
        return size(output.bytes)

    def stored(self, output: Artifact) -> str:
        return when(output.created_at)

    def state(self, output: Artifact) -> str:
        """What the daily sweep last found of the file."""
        if output.damage:
            return output.get_damage_display()
        return f"read whole {when(output.checked_at)}" if output.checked_at else "stored"


class LogInline(ReadOnlyInline):
    """What its runs said."""

    model = LogLine
    verbose_name_plural = "log"
    fields = readonly_fields = ["time", "attempt", "text"]

    @admin.display(description="At")
    def time(self, line: LogLine) -> str:
        return when(line.at)


@admin.register(Job)
class JobAdmin(ReadOnly):
    """Rows are read-only; operators act through lifecycle, so that status and money cannot part."""

    list_display = [
        "job", "kind", "owner", "state", "progressing", "heartbeat", "tries", "price", "error_code", "created",
    ]  # fmt: skip
    list_filter = [
        StatusFilter,
        KindFilter,
        QueueFilter,
        ErrorFilter,
        ("created_at", TimeFilter),
        ("finished_at", TimeFilter),
    ]
    list_select_related = ["owner"]
    search_fields = ["id"]  # shows the field; get_search_results reads it
    search_help_text = HELP
    list_before_template = "admin/jobs/all_that_match.html"
    actions = ["cancel", "retry", "fail_by_hand"]
    actions_list = ["clean_up_stuck"]
    actions_detail = ["cancel_one", "retry_one", "fail_by_hand_one"]
    inlines = [OutputInline, LogInline]
    fieldsets = [
        (None, {"fields": ["explained", "id", ("kind", "owner"), ("state", "progressing", "stage"), "error"]}),
        ("What happened", {"fields": ["timeline", "attempts"]}),
        ("Tokens", {"fields": ["ledger"]}),
        ("Asked for", {"fields": ["params", "metadata", ("priority", "tier", "max_attempts")]}),
        (
            "Clocks",
            {
                "fields": [
                    ("created", "due"),
                    ("started", "finished"),
                    ("heartbeat", "deadline"),
                    ("queue", "slot"),
                    "limits",
                ]
            },
        ),
    ]

    def get_readonly_fields(self, request, obj=None):
        return [
            name
            for _, part in self.fieldsets
            for row in part["fields"]
            for name in ([row] if isinstance(row, str) else row)
        ]

    # --- the list ----------------------------------------------------------------------------------------------------

    def get_search_results(self, request, queryset, search_term):
        """See jobs.search; what cannot be understood is said, and finds nothing."""
        try:
            return search(queryset, search_term), False
        except Refused as refused:
            self.message_user(request, refused.detail, messages.ERROR)
            return queryset.none(), False

    def get_queryset(self, request):
        """Of a list whose filter no index holds, the newest jobs; the page says so. An export takes all."""
        jobs = super().get_queryset(request)
        if request.GET.get("status") in FINAL:  # true of them all; `job_ended` is only used where it is said
            jobs = jobs.filter(finished_at__isnull=False)
        bound = not getattr(request, "exports", False) and needs_bound(request.GET)
        return newest(jobs, LOOKED_AT) if bound else jobs

    def get_ordering(self, request):
        """Ended jobs of one status by their end: `job_ended` holds it beside kind and code; what waits as it will be
        claimed, queue by queue: `job_due`; else the newest first."""
        status = request.GET.get("status")
        if status == WAITS:
            return ["queue", "-priority", "run_after"]
        return ["-finished_at"] if status in FINAL else ["-id"]

    def changelist_view(self, request, extra_context=None):
        told = {
            "may_operate": self.has_operate_permission(request),
            "looked_at": LOOKED_AT if needs_bound(request.GET) else 0,
        }
        return super().changelist_view(request, told | (extra_context or {}))

    def get_urls(self):
        """The list's own pages come before `<object_id>/`, which takes anything."""

        def of_page(view):
            return self.admin_site.admin_view(partial(view, self))

        return [
            path("bulk/", of_page(bulk.view), name="jobs_job_bulk"),
            path("dry-run/", self.admin_site.admin_view(dry_run_from_board), name="jobs_job_dry_run"),
            path("export/<str:form>/", self.admin_site.admin_view(exports.jobs), name="jobs_job_export"),
            path("ledger/<str:form>/", self.admin_site.admin_view(exports.ledger), name="jobs_job_export_ledger"),
            path("views/<str:name>/", of_page(views.view), name="jobs_job_sql_view"),
            *super().get_urls(),
        ]

    @admin.display(description="Job")
    def job(self, job: Job) -> SafeString:
        return one_line(format_html('<code title="{}">{}</code>', job.pk, short(job.pk)))

    @admin.display(description="Status")
    def state(self, job: Job) -> SafeString:
        return status_label(job)

    @admin.display(description="Progress")
    def progressing(self, job: Job) -> SafeString:
        return bar(job.progress)

    @admin.display(description="Heartbeat")
    def heartbeat(self, job: Job) -> SafeString:
        """How long ago the run of a RUNNING job was last heard of; of another its last beat is no news."""
        return one_line(ago(job.heartbeat_at) if job.status == Status.RUNNING else "–")

    @admin.display(description="Attempt")
    def tries(self, job: Job) -> SafeString:
        """Those of this round; only failed ones are limited, not what was handed back."""
        return one_line(f"{job.round_attempts}, {job.failures} of {job.max_attempts} failed")

    @admin.display(description="Created")
    def created(self, job: Job) -> SafeString:
        return one_line(when(job.created_at))

    # --- one job -----------------------------------------------------------------------------------------------------

    @admin.display(description="How it stands")
    def explained(self, job: Job) -> SafeString:
        """What its owner reads, with names and hosts."""
        return format_html_join("", "<p>{}</p>", ((sentence,) for sentence in _explained(job).now))

    @admin.display(description="Timeline")
    def timeline(self, job: Job) -> SafeString:
        rows = [
            [when(line.at), line.title, line.detail, line.code, line.by, f"{line.tokens:+d}" if line.tokens else ""]
            for line in _explained(job).timeline
        ]
        return table(["At", "What", "Details", "Code", "By", "Tokens"], rows)

    @admin.display(description="Error")
    def error(self, job: Job) -> SafeString | str:
        if not job.error_code:
            return "–"
        return format_html("{} {}", label(job.error_code, "danger"), job.error_message)

    @admin.display(description="Attempts, from the events")
    def attempts(self, job: Job) -> SafeString:
        rows = []
        for told in queries.attempts(job):
            took = ((told["finished_at"] or timezone.now()) - told["started_at"]).total_seconds()
            ended = label(told["status"], STATUS_LABELS[told["status"]])
            rows.append([told["round"], told["attempt"], when(told["started_at"]), span(took), ended])
            stages = ", ".join(f"{stage['name']} {span(stage['seconds'])}" for stage in told["stages"])
            rows[-1] += [stages, told["code"], told["message"]]
        return table(["Round", "Attempt", "Started", "Took", "Ended as", "Stages", "Code", "Message"], rows)

    @admin.display(description="Bookings of this job")
    def ledger(self, job: Job) -> SafeString:
        lines = [line for charge in queries.charges(job) for line in (charge, getattr(charge, "refund", None)) if line]
        rows = [
            [line.pk, when(line.created_at), line.kind, f"{line.amount:+d}", line.reference, told.detail]
            for line, told in zip(lines, _explained(job).money, strict=True)
        ]
        rows.append(["", "", "in all", f"{sum(line.amount for line in lines):+d}", f"price {job.price}", ""])
        return table(["Booking", "At", "Kind", "Tokens", "Reference", "Why"], rows)

    def due(self, job: Job) -> str:
        return when(job.run_after)

    def started(self, job: Job) -> str:
        return when(job.started_at)

    def deadline(self, job: Job) -> str:
        return when(job.deadline_at)

    def finished(self, job: Job) -> str:
        return when(job.finished_at)

    @admin.display(description="Limits")
    def limits(self, job: Job) -> str:
        late = f"; cancelled if not ended {when(job.cancel_at)}" if job.cancel_at else ""
        return f"runs at most {span(job.run_limit)}, without progress {span(job.stall_limit)}{late}"

    # --- what an operator does ---------------------------------------------------------------------------------------

    @admin.action(description="Cancel (refunded as sold)", permissions=["operate"])
    def cancel(self, request: HttpRequest, chosen: QuerySet[Job]):
        return ask_then_act(self, request, CANCEL, chosen)

    @admin.action(description="Retry failed ones (charged again)", permissions=["operate"])
    def retry(self, request: HttpRequest, chosen: QuerySet[Job]):
        return ask_then_act(self, request, RETRY, chosen)

    @admin.action(description="Fail by hand, with a reason (refunded)", permissions=["operate"])
    def fail_by_hand(self, request: HttpRequest, chosen: QuerySet[Job]):
        return ask_then_act(self, request, FAIL, chosen)

    @action(
        description="Cancel",
        icon="cancel",
        permissions=["operate"],
        dialog=question(
            "Cancel this job?",
            "It ends at once, refunded: in full while it waits, while it runs as its policy said when it was sold.",
            yes="Cancel the job",
        ),
    )
    def cancel_one(self, request: HttpRequest, form, object_id: str) -> HttpResponse:
        return self._one(request, CANCEL, object_id)

    @action(
        description="Retry",
        icon="replay",
        permissions=["operate"],
        dialog=question("Retry this failed job?", "A new round: its owner is charged its price again.", yes="Retry"),
    )
    def retry_one(self, request: HttpRequest, form, object_id: str) -> HttpResponse:
        return self._one(request, RETRY, object_id)

    @action(
        description="Fail by hand",
        icon="block",
        permissions=["operate"],
        variant=ActionVariant.DANGER,
        dialog=question("Fail this job by hand?", "It ends at once, refunded.", yes="Fail the job", form=ReasonForm),
    )
    def fail_by_hand_one(self, request: HttpRequest, form: ReasonForm, object_id: str) -> HttpResponse:
        return self._one(request, FAIL, object_id, form.cleaned_data["reason"])

    def get_actions_detail(self, request: HttpRequest, object_id: str):
        """Only what the job's state allows."""
        job = self.get_object(request, object_id)
        offered = {f"jobs_job_{verb.name}_one": verb for verb in (CANCEL, RETRY, FAIL)}
        found = super().get_actions_detail(request, object_id)
        return [it for it in found if job and job.status in offered[it.action_name].applies_to]

    def _one(self, request: HttpRequest, verb: Verb, object_id: str, reason: str = "") -> HttpResponse:
        job = self.get_object(request, object_id)
        if job is None:
            return leave_dialog("jobs_job_changelist")
        act_and_tell(self, request, verb, [job.pk], reason)
        return leave_dialog("jobs_job_change", job.pk)

    @action(
        description="Clean up stuck jobs",
        icon="cleaning_services",
        permissions=["operate"],
        dialog=question(
            "Clean up stuck jobs",
            "First a dry run: the next page shows what is stuck and what would be done.",
            yes="Show what is stuck",
            form=CleanupForm,
        ),
    )
    def clean_up_stuck(self, request: HttpRequest, form: CleanupForm) -> HttpResponse:
        return dry_run(request, form)


def _explained(job: Job) -> Explanation:
    """Told once for a page, which shows it in three places."""
    if not hasattr(job, "told"):
        job.told = explain(job, for_operator=True)
    return job.told
