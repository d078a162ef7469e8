"""A request to an outside service that works for a job: written before it is sent."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from .job import uuid7


class RemoteState(models.TextChoices):
    INTENDED = "intended", "sent, or about to be; not known whether it was taken"
    STARTED = "started", "taken by the service"
    CANCEL_WANTED = "cancel_wanted", "to be cancelled"
    ENDED = "ended", "over"


WAITED_FOR = [RemoteState.INTENDED, RemoteState.STARTED]


class RemoteCall(models.Model):
    """Only `jobs.remote` writes. No foreign key: a deleted job's request must still be cancelled."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)  # goes with the request
    provider = models.CharField(max_length=20)
    job_id = models.UUIDField()
    attempt = models.PositiveIntegerField()  # the attempt that waits for it; only that one may write
    state = models.CharField(max_length=13, choices=RemoteState, default=RemoteState.INTENDED)
    remote_id = models.CharField(max_length=100, blank=True)
    outcome = models.CharField(max_length=40, blank=True)
    woken_at = models.DateTimeField(null=True)  # the service's webhook says: look; taken away by who waits
    cancel_tries = models.PositiveIntegerField(default=0)
    error = models.CharField(max_length=200, blank=True)  # why the last cancel failed
    created_at = models.DateTimeField(db_default=Now())
    ends_at = models.DateTimeField()  # by its own limits the service has ended it then

    class Meta:
        constraints = [
            models.UniqueConstraint(  # a job is never worked on twice at once, whatever a worker believes
                fields=["job_id"], name="remote_one_waited_for_per_job", condition=Q(state__in=WAITED_FOR)
            )
        ]
        indexes = [
            models.Index(fields=["created_at"], name="remote_open", condition=~Q(state="ended")),  # the sweep
            models.Index(fields=["job_id"], name="remote_of_job"),  # intend, a job's page
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.remote_id or self.id}"
