"""Beat's schedules: django-celery-beat's own pages, in the same dress as the rest."""

import json
from datetime import timedelta

from celery import current_app
from django.contrib import admin
from django.db.models import OuterRef, Subquery
from django.utils.safestring import SafeString
from django_celery_beat import admin as beat
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from unfold.admin import ModelAdmin, TabularInline
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from .. import upkeep
from ..models import Tick
from .base import Audited, label, span

admin.site.unregister([PeriodicTask, IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule])


class TaskSelect(UnfoldAdminSelectWidget, beat.TaskSelectWidget):
    """Beat's list of registered tasks, drawn as Unfold draws a list."""


class TaskForm(beat.PeriodicTaskForm):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["task"].widget = UnfoldAdminTextInputWidget()
        self.fields["regtask"].widget = TaskSelect()


class TaskInline(beat.PeriodicTaskInline, TabularInline):
    pass


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(beat.PeriodicTaskAdmin, Audited):
    """What Beat sends when. Our own entries come back at Beat's next start; `enabled` stays as you set it."""

    form = TaskForm
    change_form_template = None  # Beat's own holds an inline script, which the policy refuses
    date_hierarchy = None
    list_display = ["name", "does", "enabled", "scheduler", "ran", "took", "found", "next"]
    list_filter = ["enabled", "one_off"]

    def get_queryset(self, request):
        ticks = Tick.objects.filter(name=OuterRef("name"))
        ours = {name: Subquery(ticks.values(name)) for name in ("ran_at", "period", "seconds", "found")}
        return super().get_queryset(request).annotate(**ours)

    @admin.display(description="what it does")
    def does(self, entry) -> str:
        """The first sentence of the task's own words."""
        current_app.loader.import_default_modules()
        task = current_app.tasks.get(entry.task)
        words = " ".join((task.run.__doc__ or "").split()) if task else "unknown to this version"
        return words.partition(": ")[2].partition(". ")[0] or words

    @admin.display(description="last run", ordering="ran_at")
    def ran(self, entry):
        """When its work was really done, by the tick; Beat's own `last_run_at` is when it sent the message."""
        return entry.ran_at or entry.last_run_at

    @admin.display(description="took", ordering="seconds")
    def took(self, entry) -> str:
        return "–" if entry.seconds is None else span(entry.seconds)

    @admin.display(description="result")
    def found(self, entry) -> str | SafeString:
        """What its last run did, as the task's words count it."""
        if entry.seconds is not None and entry.found is None:
            return label("failed", "danger")
        return "–" if entry.found is None else f"{entry.found:,}"

    @admin.display(description="next run")
    def next(self, entry):
        """None where it is switched off, or Beat alone knows."""
        if not entry.enabled or entry.ran_at is None:
            return None
        return entry.ran_at + timedelta(seconds=entry.period)

    def get_actions(self, request):
        """Beat's own ask for no permission: whoever may look could switch the watchmen off."""
        return super().get_actions(request) if self.has_change_permission(request) else {}

    @admin.action(description="Run now")
    def run_tasks(self, request, queryset):
        """Send the chosen at once; a watchman of ours is let run before its period is over."""
        upkeep.ask(queryset.values_list("name", flat=True))
        for entry in queryset:
            current_app.send_task(entry.task, json.loads(entry.args), json.loads(entry.kwargs), queue=entry.queue)
            self.log_change(request, entry, "Sent to be run now.")
        self.message_user(request, f"Sent: {', '.join(entry.name for entry in queryset)}. Results follow in the list.")


@admin.register(IntervalSchedule)
class IntervalScheduleAdmin(beat.IntervalScheduleAdmin, ModelAdmin):
    inlines = [TaskInline]


@admin.register(CrontabSchedule)
class CrontabScheduleAdmin(beat.CrontabScheduleAdmin, ModelAdmin):
    inlines = [TaskInline]


@admin.register(SolarSchedule)
class SolarScheduleAdmin(beat.SolarScheduleAdmin, ModelAdmin):
    inlines = [TaskInline]


@admin.register(ClockedSchedule)
class ClockedScheduleAdmin(beat.ClockedScheduleAdmin, ModelAdmin):
    inlines = [TaskInline]
