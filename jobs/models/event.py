"""What happened to a job, in order: history, attempts and audit in one."""

from django.db import models
from django.db.models.functions import Now

from .job import Job, Status


class JobEvent(models.Model):
    """One transition, written in the transition's own transaction. Events of one attempt number are the attempt."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="events")
    at = models.DateTimeField(db_default=Now())
    round = models.PositiveIntegerField(default=1)
    attempt = models.PositiveIntegerField()
    status = models.CharField(max_length=10, choices=Status)  # the job's status from here on
    code = models.CharField(max_length=40, blank=True)  # an ErrorCode's name, or `handed_back`
    message = models.CharField(max_length=1000, blank=True)
    by = models.CharField(max_length=80, blank=True)  # who: a user, `worker`, `monitor`, `cleanup`
    tokens = models.IntegerField(default=0)  # what the owner's balance moved by with this transition
    stages = models.JSONField(null=True)  # [[stage, seconds], …] of the attempt that this ended; null: it named none

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(  # stats.stage_times
                fields=["at"], name="event_staged", condition=models.Q(stages__isnull=False)
            )
        ]

    def __str__(self) -> str:
        return f"{self.status} (attempt {self.attempt})"
