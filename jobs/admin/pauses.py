"""Queues that the operator holds: adding a line pauses one, deleting it lets the queue go on."""

from django import forms
from django.contrib import admin
from unfold.widgets import UnfoldAdminSelectWidget

from jobs import pauses
from jobs.dispatch import work_queues
from jobs.models import Pause

from .base import Audited, NamesWho, who


class PauseForm(forms.ModelForm):
    queue = forms.ChoiceField(choices=lambda: [(name, name) for name in work_queues()], widget=UnfoldAdminSelectWidget)

    class Meta:
        model = Pause
        fields = ["queue", "reason"]


@admin.register(Pause)
class PauseAdmin(NamesWho, Audited):
    """What runs goes on; submits are taken and wait."""

    form = PauseForm
    list_display = ["queue", "reason", "asked_by", "since"]
    actions = None

    def get_readonly_fields(self, request, obj=None):
        return ["asked_by", "since"] if obj else []

    def get_fields(self, request, obj=None):
        return ["queue", "reason", *self.get_readonly_fields(request, obj)]

    def save_model(self, request, obj, form, change):
        pauses.pause(obj.queue, reason=obj.reason, by=who(request))

    def delete_model(self, request, obj):
        pauses.resume(obj.queue, by=who(request))
