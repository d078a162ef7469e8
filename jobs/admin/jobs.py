"""The job list and one job's page: what happened, attempt by attempt, what it cost, what came out."""

import uuid

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import action
from unfold.enums import ActionVariant

from jobs import kinds, queries
from jobs.errors import ErrorCode
from jobs.models import Artifact, Job, JobEvent, Status
from tokens.models import Transaction

from .actions import CANCEL, FAIL, RETRY, Verb, act_and_tell, ask_then_act
from .base import (
    STATUS_LABELS,
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
    fields = readonly_fields = ["download", "content_type", "size", "attempt", "sha256", "stored", "state"]

    def get_formset(self, request: HttpRequest, obj: Job | None = None, **kwargs):
        """An inline is made for each request, so it may know who asks: downloading a user's work takes an admin."""
        self.may_download = request.user.is_superuser
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
    list_filter = [StatusFilter, KindFilter, QueueFilter, ErrorFilter, ("created_at", TimeFilter)]
    list_select_related = ["owner"]
    ordering = ["-id"]
    search_fields = ["id", "owner__username"]  # read by get_search_results
    search_help_text = "a job's id or its beginning, or an owner's name"
    actions = ["cancel", "retry", "fail_by_hand"]
    actions_list = ["clean_up_stuck"]
    actions_detail = ["cancel_one", "retry_one", "fail_by_hand_one"]
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
        failed = f", {job.failures} failed" if job.failures else ""
        return one_line(f"{job.round_attempts} of {job.max_attempts}{failed}")

    @admin.display(description="Created")
    def created(self, job: Job) -> SafeString:
        return one_line(when(job.created_at))

    # --- one job -----------------------------------------------------------------------------------------------------

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
            rows[-1] += [told["code"], told["message"]]
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

    @admin.display(description="Limits")
    def limits(self, job: Job) -> str:
        return f"runs at most {span(job.run_limit)}, without progress {span(job.stall_limit)}"

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
