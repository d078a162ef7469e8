"""Who is alive: the workers' slots, the watchmen's clock, and the outside services' breakers."""

from django.contrib import admin
from django.db.models import OuterRef, Subquery
from django.utils import timezone
from django.utils.safestring import SafeString

from jobs.models import Breaker, Job, Slot, Status, Tick

from .. import breakers, slots
from .base import ReadOnly, ago, job_link, label, span, when


@admin.register(Slot)
class SlotAdmin(ReadOnly):
    """One line a pool child: each runs one job at a time."""

    list_display = ["process", "serves", "alive", "job", "claimed", "since"]
    ordering = ["-seen_at"]
    search_fields = ["host"]
    fieldsets = [
        (None, {"fields": [("process", "serves", "alive"), ("job", "claimed", "since"), ("boot_id", "parent_pid")]})
    ]
    readonly_fields = ["process", "serves", "alive", "job", "claimed", "since", "boot_id", "parent_pid"]

    def get_queryset(self, request):
        """With the job that each one runs; `job_running` is the index."""
        running = Job.objects.filter(status=Status.RUNNING, slot=OuterRef("pk"))
        return super().get_queryset(request).annotate(runs=Subquery(running.values("pk")[:1]))

    @admin.display(description="Process")
    def process(self, slot: Slot) -> str:
        return f"{slot.host}: {slot.pid}"

    @admin.display(description="Queues")
    def serves(self, slot: Slot) -> str:
        return ", ".join(slot.queues) or "–"

    @admin.display(description="Last seen")
    def alive(self, slot: Slot) -> SafeString:
        """Green while it writes its heartbeat, red once three beats are missing, as /health counts."""
        late = (timezone.now() - slot.seen_at).total_seconds() > slots.seen_within()
        return label(ago(slot.seen_at), "danger" if late else "success")

    @admin.display(description="Runs")
    def job(self, slot: Slot) -> SafeString | str:
        return job_link(slot.runs) if slot.runs else "–"

    @admin.display(description="Last claim")
    def claimed(self, slot: Slot) -> str:
        return ago(slot.claimed_at)

    @admin.display(description="Started")
    def since(self, slot: Slot) -> str:
        return when(slot.started_at)


@admin.register(Tick)
class TickAdmin(ReadOnly):
    """When each watchman last did its work. Two periods late is too late: /health is red then."""

    list_display = ["name", "every", "ran", "late"]
    ordering = ["period", "name"]
    fields = readonly_fields = ["name", "every", "ran", "late"]

    @admin.display(description="Every")
    def every(self, tick: Tick) -> str:
        return span(tick.period)

    @admin.display(description="Last ran")
    def ran(self, tick: Tick) -> str:
        return f"{when(tick.ran_at)} ({ago(tick.ran_at)})" if tick.ran_at else "never"

    @admin.display(description="Verdict")
    def late(self, tick: Tick) -> SafeString:
        if tick.ran_at is None:
            return label("not yet", "default")
        late = (timezone.now() - tick.ran_at).total_seconds() > 2 * tick.period
        return label("late", "danger") if late else label("on time", "success")


@admin.register(Breaker)
class BreakerAdmin(ReadOnly):
    """Outside services that failed. An open breaker leaves its service alone until the cool-down is over."""

    list_display = ["target", "state", "recent", "opened"]
    ordering = ["target"]
    fields = readonly_fields = ["target", "state", "recent", "opened"]

    @admin.display(description="State")
    def state(self, breaker: Breaker) -> SafeString:
        state = next(state for target, state, _ in breakers.states() if target == breaker.target)
        return label(state, {"closed": "success", "open": "danger"}.get(state, "warning"))

    @admin.display(description="Recent failures")
    def recent(self, breaker: Breaker) -> int:
        return len(breaker.failures)

    @admin.display(description="Opened")
    def opened(self, breaker: Breaker) -> str:
        return f"{when(breaker.opened_at)} ({ago(breaker.opened_at)})" if breaker.opened_at else "–"
