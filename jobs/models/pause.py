"""A queue that the operator holds."""

from django.db import models
from django.db.models.functions import Now


class Pause(models.Model):
    """While the row is there, no job of the queue is claimed; what runs goes on, and submits are taken."""

    queue = models.CharField(primary_key=True, max_length=20)
    reason = models.CharField(max_length=200, help_text="Owners of waiting jobs read it.")
    by = models.CharField(max_length=80, editable=False)
    since = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["queue"]

    def __str__(self) -> str:
        return self.queue
