"""Webhooks: whose endpoints there are and how they fare, and what was sent. Addresses may hold a token, so their hosts
alone are shown; bodies are their owners'."""

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import action

from jobs import webhooks
from jobs.errors import Refused
from jobs.models import Delivery, Endpoint, Muted

from .base import FieldFilter, ReadOnly, ago, job_link, label, table, when

ANY = "any"  # for whatever reason: what the first screen counts
STATE_LABELS = {"delivered": "success", "owed": "info", "failed": "danger"}


class MutedFilter(FieldFilter):
    title, parameter_name = "muted", "muted"
    options = staticmethod(lambda: [ANY, *Muted.values])

    def queryset(self, request, queryset):
        return queryset.exclude(muted="") if self.value() == ANY else super().queryset(request, queryset)


class StateFilter(FieldFilter):
    title, parameter_name = "state", "state"
    options = staticmethod(lambda: sorted(webhooks.STATES))

    def queryset(self, request, queryset):
        return queryset.filter(webhooks.STATES[self.value()]) if self.value() in webhooks.STATES else queryset


@admin.register(Endpoint)
class EndpointAdmin(ReadOnly):
    """Endpoints by their hosts. Neither address nor secret is shown."""

    list_display = ["id", "where", "owner", "state", "failures", "failing", "made"]
    list_select_related = ["owner"]
    list_filter = [MutedFilter]
    search_fields = ["owner__username"]
    ordering = ["-id"]
    fields = readonly_fields = ["id", "where", "owner", "description", "types", "state", "failures", "failing", "made"]
    actions = ["mute", "unmute"]

    @admin.display(description="Host")
    def where(self, endpoint: Endpoint) -> str:
        return endpoint.host

    @admin.display(description="State")
    def state(self, endpoint: Endpoint) -> SafeString:
        if endpoint.muted:
            since = f"{endpoint.get_muted_display()} since {when(endpoint.muted_at)}"
            return format_html("{} {}", label("muted", "danger"), since)
        return label("failing", "warning") if endpoint.failures else label("on", "success")

    @admin.display(description="Failing for")
    def failing(self, endpoint: Endpoint) -> str:
        return ago(endpoint.failing_since)

    def made(self, endpoint: Endpoint) -> str:
        return when(endpoint.created_at)

    @action(description="Mute", permissions=["operate"])
    def mute(self, request, chosen) -> None:
        self._change(request, chosen, lambda endpoint: webhooks.mute(endpoint.pk, Muted.OFF), "Muted")

    @action(description="Unmute", permissions=["operate"])
    def unmute(self, request, chosen) -> None:
        self._change(request, chosen, webhooks.enable, "Unmuted")

    def _change(self, request, chosen, change, word: str) -> None:
        changed = [endpoint for endpoint in chosen[:1000] if change(endpoint)]
        for endpoint in changed:
            self.log_change(request, endpoint, f"{word}.")
        self.message_user(request, f"{word}: {len(changed)}; the others were already.")


@admin.register(Delivery)
class DeliveryAdmin(ReadOnly):
    """The messages of 30 days, with their tries."""

    list_display = ["id", "type", "endpoint", "state_label", "attempts", "last", "made"]
    list_select_related = ["endpoint"]
    list_filter = [StateFilter]
    ordering = ["-id"]
    fields = readonly_fields = [
        "id", "type", "endpoint", "job_page", "state_label", "attempts", "next_at", "delivered_at", "made", "tries",
    ]  # fmt: skip
    actions = ["replay"]

    def get_queryset(self, request):
        return super().get_queryset(request).defer("body")

    @admin.display(description="State")
    def state_label(self, delivery: Delivery) -> SafeString:
        return label(delivery.state, STATE_LABELS[delivery.state])

    @admin.display(description="Job")
    def job_page(self, delivery: Delivery) -> SafeString | str:
        return job_link(delivery.job) if delivery.job else "–"

    @admin.display(description="Last try")
    def last(self, delivery: Delivery) -> str:
        return (delivery.log[-1]["error"] or str(delivery.log[-1]["status"])) if delivery.log else "–"

    def made(self, delivery: Delivery) -> str:
        return when(delivery.created_at)

    def tries(self, delivery: Delivery) -> SafeString:
        rows = [
            (line["at"], line["status"] or "–", line["seconds"], line["error"], line["excerpt"])
            for line in delivery.log
        ]
        return table(["At", "Status", "Seconds", "Error", "Answer"], rows)

    @action(description="Send again", permissions=["operate"])
    def replay(self, request, chosen) -> None:
        again = 0
        for delivery in chosen.select_related("endpoint")[:1000]:
            try:
                webhooks.replay(delivery)
            except Refused:  # its endpoint is muted
                continue
            self.log_change(request, delivery, "Sent again.")
            again += 1
        self.message_user(request, f"Sent again: {again}; the others' endpoints are muted.")
