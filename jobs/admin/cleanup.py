"""Cleanups: their history, and the operator's own, a dry run first."""

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminIntegerFieldWidget

from jobs import cleanup, policy
from jobs.errors import Refused
from jobs.models import CleanupRun

from .base import NamesWho, ReadOnly, TimeFilter, job_link, label, leave_dialog, question, span, table, when, who
from .dashboard import figures

SHOWN = 200  # lines of a report on its page; the row keeps them all


class CleanupForm(BaseDialogForm):
    """What the dry run looks for. Empty fields take the platform's settings."""

    timeout = forms.FloatField(
        required=False,
        label="Seconds without a heartbeat",
        help_text="Of kinds whose policy has no timeout of its own.",
        widget=UnfoldAdminDecimalFieldWidget({"step": "any"}),
    )
    batch_size = forms.IntegerField(
        required=False, label="Jobs in one transaction", widget=UnfoldAdminIntegerFieldWidget
    )


def dry_run_from_board(request: HttpRequest) -> HttpResponse:
    """The dashboard's button: the same with the platform's settings, for a plain form."""
    if request.method != "POST" or not request.user.has_perm("jobs.change_job"):
        raise PermissionDenied
    report = cleanup.cleanup_stuck_jobs(by=who(request), dry_run=True)
    return HttpResponseRedirect(reverse("admin:jobs_cleanuprun_change", args=[report.pk]))


def dry_run(request: HttpRequest, form: CleanupForm) -> HttpResponse:
    """Write the report of a dry run and show it; its page offers to do it. Nothing of a job is changed."""
    asked = {name: form.cleaned_data[name] for name in ("timeout", "batch_size")}
    try:
        report = cleanup.cleanup_stuck_jobs(by=who(request), dry_run=True, **asked)
    except Refused as refused:
        messages.error(request, f"Nothing was done: {_why(refused)}")
        return leave_dialog("jobs_job_changelist")
    return leave_dialog("jobs_cleanuprun_change", report.pk)


def _why(refused: Refused) -> str:
    return " ".join(f"{name}: {detail}" for name, _, detail in refused.fields) or refused.detail


@admin.register(CleanupRun)
class CleanupRunAdmin(NamesWho, ReadOnly):
    """What each cleanup found and did; a dry run's page is where it can be done."""

    list_display = [
        "started", "asked_by", "mode", "found", "cleaned", "retried", "could_not", "tokens_refunded", "timeout", "took",
    ]  # fmt: skip
    list_filter = ["dry_run", ("started_at", TimeFilter)]
    ordering = ["-id"]
    actions_detail = ["clean_up_now"]
    fieldsets = [
        (None, {"fields": [("started", "asked_by", "mode"), ("timeout", "batch_size", "took")]}),
        (
            "Result",
            {"fields": [("found", "cleaned", "retried"), ("could_not", "tokens_refunded"), "lines", "problems"]},
        ),
    ]
    readonly_fields = [
        "started", "asked_by", "mode", "timeout", "batch_size", "took", "found", "cleaned", "retried", "could_not",
        "tokens_refunded", "lines", "problems",
    ]  # fmt: skip

    def started(self, run: CleanupRun) -> str:
        return when(run.started_at)

    @admin.display(description="Mode")
    def mode(self, run: CleanupRun) -> SafeString:
        return label("dry run", "info") if run.dry_run else label("done", "success")

    def took(self, run: CleanupRun) -> str:
        return span((run.finished_at - run.started_at).total_seconds()) if run.finished_at else "–"

    @admin.display(description="Could not be settled")
    def could_not(self, run: CleanupRun) -> int:
        return run.failed

    @admin.display(description="Jobs")
    def lines(self, run: CleanupRun) -> SafeString:
        told = run.jobs[:SHOWN]
        forecasts = _forecasts(run, [line["jobId"] for line in told]) if run.dry_run else {}
        rows = [
            [
                job_link(line["jobId"]),
                line["kind"],
                line["userId"],
                span(line["processingDuration"] / 1000),
                forecasts.get(line["jobId"], "is not stuck any more") if run.dry_run else line.get("status", ""),
                *([] if run.dry_run else [line["tokensRefunded"]]),
            ]
            for line in told
        ]
        if len(run.jobs) > SHOWN:
            rows.append([f"and {len(run.jobs) - SHOWN} more"])
        ended = ["Would be"] if run.dry_run else ["Became", "Tokens refunded"]
        return table(["Job", "Kind", "User", "Ran for", *ended], rows)

    @admin.display(description="Not settled")
    def problems(self, run: CleanupRun) -> SafeString:
        return table(["Job", "Why"], [[job_link(line["jobId"]), line["error"]] for line in run.errors[:SHOWN]])

    def has_operate_permission(self, request: HttpRequest, obj=None) -> bool:
        return request.user.has_perm("jobs.change_job")  # it is jobs that a cleanup changes

    def get_actions_detail(self, request: HttpRequest, object_id):
        """Only a dry run can be done."""
        run = self.get_object(request, object_id)
        return super().get_actions_detail(request, object_id) if run and run.dry_run and run.found else []

    @action(
        description="Clean up now",
        icon="cleaning_services",
        permissions=["operate"],
        variant=ActionVariant.DANGER,
        dialog=question(
            "Clean up now?",
            "What is stuck by then is tried again while its budget lasts, else failed and refunded.",
            yes="Clean up",
        ),
    )
    def clean_up_now(self, request: HttpRequest, form, object_id: str) -> HttpResponse:
        dry = self.get_object(request, object_id)
        if dry is None:
            return leave_dialog("jobs_cleanuprun_changelist")
        try:
            run = cleanup.cleanup_stuck_jobs(by=who(request), timeout=dry.timeout, batch_size=dry.batch_size)
        except Refused as refused:
            self.message_user(request, f"Nothing was done: {_why(refused)}", messages.ERROR)
            return leave_dialog("jobs_cleanuprun_change", dry.pk)
        said = (
            f"Cleaned up {run.cleaned} of {run.found} stuck jobs: {run.retried} will be tried again, "
            f"{run.cleaned - run.retried} failed; {run.tokens_refunded} tokens refunded."
        )
        self.log_addition(request, run, said)
        figures.forget()
        self.message_user(request, said, messages.SUCCESS)
        if run.failed:
            self.message_user(request, f"{run.failed} could not be settled; see below.", messages.WARNING)
        return leave_dialog("jobs_cleanuprun_change", run.pk)


def _forecasts(run: CleanupRun, ids: list[str]) -> dict[str, str]:
    """What a cleanup would do now to the jobs of a dry run that are still stuck, in words by job id."""
    told = {}
    for job in cleanup.find_stuck(run.timeout).filter(pk__in=ids):
        error = cleanup.verdict(job, run.timeout)
        again, _ = policy.tries_again(
            error.code,
            retryable=error.retryable,
            failures=job.failures,
            max_attempts=job.max_attempts,
            round_attempts=job.round_attempts,
        )
        told[str(job.pk)] = f"{error.code.name}: " + (
            "tried again" if again else f"failed, {job.price} tokens refunded"
        )
    return told
