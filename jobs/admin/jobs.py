"""The job list and one job's page: what happened, attempt by attempt, what it cost, what came out."""

import uuid

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RangeDateTimeFilter
from unfold.decorators import action
from unfold.enums import ActionVariant

from jobs import kinds
from jobs.errors import ErrorCode
from jobs.models import Artifact, Job, JobEvent, Status
from tokens.models import Transaction

from .actions import CANCEL, FAIL, RETRY, Verb, act_and_tell, ask_then_act
from .base import (
    FieldFilter,
    ReadOnly,
    ReadOnlyInline,
    ReasonForm,
    ago,
    bar,
    label,
    leave_dialog,
    question,
    short,
    size,
    span,
    status_label,
    table,
    when,
)
from .cleanup import CleanupForm, dry_run


class StatusFilter(FieldFilter):
    title, parameter_name = "status", "status"
    options = staticmethod(lambda: Status.values)


class KindFilter(FieldFilter):
    title, parameter_name = "kind", "kind"
    options = staticmethod(kinds.names)


class QueueFilter(FieldFilter):
    title, parameter_name = "queue", "queue"
    options = staticmethod(lambda: sorted({kinds.get(name).queue for name in kinds.names()}))


class ErrorFilter(FieldFilter):
    title, parameter_name = "error code", "error_code"
    options = staticmethod(lambda: [code.name for code in ErrorCode])


class OutputInline(ReadOnlyInline):
    """What the job published."""

    model = Artifact
    verbose_name_plural = "outputs"
    fields = readonly_fields = ["download", "content_type", "size", "attempt", "sha256", "stored"]

    @admin.display(description="Output")
    def download(self, output: Artifact) -> SafeString:
        address = reverse("admin:jobs_job_changelist").removesuffix("admin/jobs/job/")
        address = f"{address}api/jobs/{output.job_id}/outputs/"
        return format_html('<a href="{}{}/" class="text-link">{}</a>', address, output.name, output.name)

    def size(self, output: Artifact) -> str:
        return size(output.bytes)

    def stored(self, output: Artifact) -> str:
        return when(output.created_at)


class EventInline(ReadOnlyInline):
    """Every transition, oldest first."""

    model = JobEvent
    verbose_name_plural = "events"
    fields = readonly_fields = ["time", "round", "attempt", "becomes", "code", "message", "by", "tokens"]

    @admin.display(description="At")
    def time(self, event: JobEvent) -> str:
        return when(event.at)

    def becomes(self, event: JobEvent) -> SafeString:
        return status_label(event)


@admin.register(Job)
class JobAdmin(ReadOnly):
    """Rows are read-only; operators act through lifecycle, so that status and money cannot part."""

    list_display = [
        "job", "kind", "owner", "state", "progressing", "heartbeat", "tries", "price", "error_code", "created",
    ]  # fmt: skip
    list_filter = [StatusFilter, KindFilter, QueueFilter, ErrorFilter, ("created_at", RangeDateTimeFilter)]
    list_select_related = ["owner"]
    ordering = ["-id"]
    search_fields = ["id", "owner__username"]  # read by get_search_results
    search_help_text = "a job's id or its beginning, or an owner's name"
    actions = ["cancel", "retry", "fail_by_hand"]
    actions_list = ["clean_up_stuck"]
    actions_detail = ["cancel_one", "retry_one", "fail_one"]
    inlines = [OutputInline, EventInline]
    fieldsets = [
        (None, {"fields": ["id", ("kind", "owner"), ("state", "progressing", "stage"), "error"]}),
        ("Attempts", {"fields": ["attempts"]}),
        ("Tokens", {"fields": ["ledger"]}),
        ("Asked for", {"fields": ["params", "metadata", ("priority", "tier", "max_attempts")]}),
        (
            "Clocks",
            {
                "fields": [
                    ("created", "due", "started"),
                    ("heartbeat", "deadline", "finished"),
                    ("queue", "slot", "limits"),
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
        """By whole id, by an id's first 8 or more characters (a range: ids are an index), or by the owner's name."""
        digits = search_term.strip().replace("-", "").lower()
        if 8 <= len(digits) <= 32 and set(digits) <= set("0123456789abcdef"):
            first, last = (uuid.UUID(digits.ljust(32, end)) for end in "0f")
            found = queryset.filter(Q(pk__range=(first, last)) | Q(owner__username=search_term.strip()))
        elif search_term.strip():
            found = queryset.filter(owner__username__icontains=search_term.strip())
        else:
            found = queryset
        return found, False

    @admin.display(description="Job")
    def job(self, job: Job) -> SafeString:
        return format_html('<code title="{}">{}</code>', job.pk, short(job.pk))

    @admin.display(description="Status")
    def state(self, job: Job) -> SafeString:
        return status_label(job)

    @admin.display(description="Progress")
    def progressing(self, job: Job) -> SafeString:
        return bar(job.progress)

    @admin.display(description="Heartbeat")
    def heartbeat(self, job: Job) -> str:
        """How long ago the run of a RUNNING job was last heard of; of another its last beat is no news."""
        return ago(job.heartbeat_at) if job.status == Status.RUNNING else "–"

    @admin.display(description="Attempt")
    def tries(self, job: Job) -> str:
        return (
            f"{job.failures} failed of {job.max_attempts}" if job.failures else f"{job.attempt} of {job.max_attempts}"
        )

    @admin.display(description="Created")
    def created(self, job: Job) -> str:
        return when(job.created_at)

    # --- one job -----------------------------------------------------------------------------------------------------

    @admin.display(description="Error")
    def error(self, job: Job) -> SafeString | str:
        if not job.error_code:
            return "–"
        return format_html("{} {}", label(job.error_code, "danger"), job.error_message)

    @admin.display(description="Attempts, from the events")
    def attempts(self, job: Job) -> SafeString:
        rows = []
        for event in job.events.exclude(status=Status.QUEUED):
            if event.status == Status.RUNNING:
                rows.append([event.round, event.attempt, when(event.at), "", "runs", "", ""])
                began = event.at
            elif rows and rows[-1][1] == event.attempt and rows[-1][4] == "runs":
                rows[-1][3:] = [
                    span((event.at - began).total_seconds()),
                    status_label(event),
                    event.code,
                    event.message,
                ]
        return table(["Round", "Attempt", "Started", "Took", "Ended as", "Code", "Message"], rows)

    @admin.display(description="Bookings of this job")
    def ledger(self, job: Job) -> SafeString:
        """By reference and by what reverses it: both are unique indexes, where a search by prefix would read it all."""
        charges = Q(kind=Transaction.Kind.CHARGE, reference__in=[f"job:{job.pk}:{n + 1}" for n in range(job.round)])
        charged = list(Transaction.objects.filter(charges).order_by("id"))
        refunds = {booked.reverses_id: booked for booked in Transaction.objects.filter(reverses__in=charged)}
        lines = [line for charge in charged for line in (charge, refunds.get(charge.pk)) if line]
        rows = [
            [line.pk, when(line.created_at), line.kind, f"{line.amount:+d}", line.reference, line.reason]
            for line in lines
        ]
        rows.append(["", "", "in all", f"{sum(line.amount for line in lines):+d}", f"price {job.price}", ""])
        return table(["Booking", "At", "Kind", "Tokens", "Reference", "Reason"], rows)

    def due(self, job: Job) -> str:
        return when(job.run_after)

    def started(self, job: Job) -> str:
        return when(job.started_at)

    def deadline(self, job: Job) -> str:
        return when(job.deadline_at)

    def finished(self, job: Job) -> str:
        return when(job.finished_at)

    def slot(self, job: Job) -> str:
        return str(job.slot_id or "–")

    @admin.display(description="Limits")
    def limits(self, job: Job) -> str:
        return f"runs at most {span(job.run_limit)}, without progress {span(job.stall_limit)}"

    # --- what an operator does ---------------------------------------------------------------------------------------

    @admin.action(description="Cancel (refunded)", permissions=["operate"])
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
        dialog=question("Cancel this job?", "It ends at once and its tokens are refunded.", yes="Cancel the job"),
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
    def fail_one(self, request: HttpRequest, form: ReasonForm, object_id: str) -> HttpResponse:
        return self._one(request, FAIL, object_id, form.cleaned_data["reason"])

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
