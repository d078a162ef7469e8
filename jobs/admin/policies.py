"""The operator's rules for kinds of jobs, and what the operator was told."""

from datetime import timedelta

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import action
from unfold.widgets import UnfoldAdminSelectWidget

from jobs.kinds.base import REGISTRY
from jobs.models import Alert, Policy

from .. import policies, policy
from .base import Audited, ReadOnly, ago, label, when

SNOOZE = timedelta(days=1)


class PolicyForm(forms.ModelForm):
    """Refuses kinds and tiers that do not exist, and limits that would not hold."""

    kind = forms.ChoiceField(
        choices=lambda: [(name, name) for name in sorted(REGISTRY)], widget=UnfoldAdminSelectWidget
    )

    def clean(self) -> dict:
        wanted = super().clean()
        kind = REGISTRY.get(wanted.get("kind", ""))
        tier = wanted.get("tier")
        if kind and tier and tier not in kind.tiers:
            known = ", ".join(kind.tiers) or "none"
            self.add_error("tier", f"{kind.name} has no such tier; it has {known}.")
        if (wanted.get("run_limit") or 0) > policies.run_most():
            self.add_error("run_limit", f"Must be at most {policies.run_most():g} seconds (JOB_RUN_LIMIT_MAX).")
        own = settings.JOBSITE
        least, most = policy.cleanup_timeout(0.0, own["HEARTBEAT_SECONDS"]), own["HEARTBEAT_TIMEOUT"]
        if (timeout := wanted.get("timeout_seconds")) is not None and not least <= timeout <= most:
            self.add_error("timeout_seconds", f"Must be from {least:g} to {most:g} seconds.")
        return wanted


@admin.register(Policy)
class PolicyAdmin(Audited):
    """One line a kind or tier. It holds for what is sold from now on; docs/policies.md says more."""

    form = PolicyForm
    list_display = ["kind", "tier", "price_percent", "run_limit", "max_attempts", "stale_action", "cancel_refund"]

    def save_model(self, request, obj, form, change) -> None:
        super().save_model(request, obj, form, change)
        policies.forget()

    def delete_model(self, request, obj) -> None:
        super().delete_model(request, obj)
        policies.forget()

    def delete_queryset(self, request, queryset) -> None:
        super().delete_queryset(request, queryset)
        policies.forget()


@admin.register(Alert)
class AlertAdmin(ReadOnly):
    """What is wrong now, and what was."""

    list_display = ["code", "state", "detail", "told", "snoozed"]
    ordering = ["code"]
    fields = readonly_fields = ["code", "state", "detail", "told", "snoozed", "messages", "owed"]
    actions = ["snooze"]

    @admin.display(description="State")
    def state(self, alert: Alert) -> SafeString:
        if alert.began_at:
            return label(f"since {when(alert.began_at)}", "danger")
        return label("over" if alert.ended_at else "well", "success")

    @admin.display(description="Last told")
    def told(self, alert: Alert) -> str:
        return ago(alert.sent_at) if alert.sent_at else "–"

    @admin.display(description="Quiet until")
    def snoozed(self, alert: Alert) -> str:
        quiet = alert.snoozed_until and alert.snoozed_until > timezone.now()
        return when(alert.snoozed_until) if quiet else "–"

    @action(description="Only log it for a day", permissions=["operate"])
    def snooze(self, request, alerts) -> None:
        number = alerts.update(snoozed_until=timezone.now() + SNOOZE)
        for alert in alerts:
            self.log_change(request, alert, "Only logged for a day.")
        messages.success(request, f"Only logged until tomorrow: {number}.")
