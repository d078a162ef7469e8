"""What RunPod was asked to do: which requests nobody waits for any more and are still there, and why."""

from django.contrib import admin
from django.utils.safestring import SafeString

from jobs.models import RemoteCall, RemoteState

from .base import FieldFilter, ReadOnly, ago, job_link, label, when

LABELS = {
    RemoteState.INTENDED: "warning",
    RemoteState.STARTED: "primary",
    RemoteState.CANCEL_WANTED: "danger",
    RemoteState.ENDED: "default",
}


class StateFilter(FieldFilter):
    title = "state"
    parameter_name = "state"

    def options(self) -> list[str]:
        return RemoteState.values


@admin.register(RemoteCall)
class RemoteCallAdmin(ReadOnly):
    """One line a request. `cancel_wanted` is a stray: the sweep asks RunPod again every minute until it is gone."""

    list_display = ["remote", "job", "attempt", "standing", "outcome", "cancel_tries", "error", "begun", "ends"]
    list_filter = [StateFilter]
    ordering = ["-id"]
    search_fields = ["remote_id"]
    fields = readonly_fields = [
        "id",
        "remote",
        "job",
        "attempt",
        "standing",
        "outcome",
        "cancel_tries",
        "error",
        "begun",
        "ends",
    ]

    @admin.display(description="On RunPod")
    def remote(self, call: RemoteCall) -> str:
        return call.remote_id or "not known"

    @admin.display(description="Job")
    def job(self, call: RemoteCall) -> SafeString:
        return job_link(call.job_id)

    @admin.display(description="State")
    def standing(self, call: RemoteCall) -> SafeString:
        return label(call.state, LABELS[RemoteState(call.state)])

    @admin.display(description="Sent")
    def begun(self, call: RemoteCall) -> str:
        return ago(call.created_at)

    @admin.display(description="Over by its own limit")
    def ends(self, call: RemoteCall) -> str:
        return when(call.ends_at)
