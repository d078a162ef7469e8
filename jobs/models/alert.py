"""What the operator was told, and what he has still to be told."""

from django.db import models


class Alert(models.Model):
    """One condition of `jobs.alerts`; true since `began_at`, which is null while all is well."""

    code = models.CharField(primary_key=True, max_length=40)
    began_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)  # the last time
    detail = models.CharField(max_length=300, blank=True)
    messages = models.PositiveIntegerField(default=0)  # so far; who raises it sends the next one: compare-and-set
    sent_at = models.DateTimeField(null=True)  # the last message
    owed = models.JSONField(default=list)  # channels that have not taken the last message yet
    sent_by = models.DateTimeField(null=True)  # who took the last message has until then to send it
    snoozed_until = models.DateTimeField(null=True)  # until then it is only logged

    class Meta:
        ordering = ["code"]

    def __str__(self) -> str:
        return self.code
