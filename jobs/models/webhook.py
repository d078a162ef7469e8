"""Where a user wants to be told what became of their jobs, and each message with the tries to deliver it."""

from urllib.parse import urlsplit

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from .job import uuid7


class Muted(models.TextChoices):
    """Why an endpoint gets nothing."""

    OFF = "off", "switched off by hand"
    GONE = "gone", "its host answered 410 Gone"
    FAILING = "failing", "its host took nothing for a day and longer"


class Endpoint(models.Model):
    """An address that messages go to. The secret that signs them is in no column: `jobs.webhooks.secret_of` derives
    it from the platform's key and the salt."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="webhooks")
    url = models.CharField(max_length=500)  # may hold a token: shown to its owner alone, and in no log
    description = models.CharField(max_length=80, blank=True)
    types = models.JSONField(default=list)  # of messages; empty: all
    salt = models.CharField(max_length=32)
    hint = models.CharField(max_length=4)  # the secret's last characters: tells people secrets apart, us a changed key
    old_salt = models.CharField(max_length=32, blank=True)  # signs, too, until old_until
    old_until = models.DateTimeField(null=True)
    cursor = models.BigIntegerField()  # events up to this one are turned into messages, or are none of this endpoint's
    created_at = models.DateTimeField(db_default=Now())
    muted = models.CharField(max_length=10, blank=True, choices=Muted)  # empty: it gets its messages
    muted_at = models.DateTimeField(null=True)
    tell_at = models.DateTimeField(null=True)  # its owner is owed a mail about it
    failures = models.PositiveIntegerField(default=0)  # in a row
    failing_since = models.DateTimeField(null=True)
    rest_until = models.DateTimeField(null=True)  # its host asked for a pause (Retry-After)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(name="endpoint_muted_since", condition=Q(muted="") ^ Q(muted_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.host} ({self.id})"

    @property
    def host(self) -> str:
        """The part of the address that may be shown to anybody."""
        return urlsplit(self.url).hostname or ""


class Delivery(models.Model):
    """One message to one endpoint. It outlives its job: what is sent was written when the message was made."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)  # webhook-id, the same on every try
    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="deliveries", db_index=False)
    event = models.BigIntegerField(null=True)  # the JobEvent's id, which may be deleted; null: a test
    job = models.UUIDField(null=True)  # the same
    type = models.CharField(max_length=40)
    body = models.TextField()  # the bytes that are signed and sent, UTF-8
    created_at = models.DateTimeField(db_default=Now())
    next_at = models.DateTimeField(null=True)  # it is owed from then on; null: delivered, given up or held
    attempts = models.PositiveIntegerField(default=0)  # in all; who raises it may write what became of it
    tries = models.PositiveSmallIntegerField(default=0)  # since it was made or replayed: how long the next pause is
    delivered_at = models.DateTimeField(null=True)
    log = models.JSONField(default=list)  # the last tries, oldest first: at, status, seconds, error, excerpt

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "deliveries"
        constraints = [
            models.UniqueConstraint(fields=["event", "endpoint"], name="delivery_once_per_event"),
            models.CheckConstraint(name="delivery_ended_or_owed", condition=Q(delivered_at=None) | Q(next_at=None)),
            models.CheckConstraint(name="delivery_tries_are_attempts", condition=Q(tries__lte=F("attempts"))),
        ]
        indexes = [
            models.Index(fields=["next_at"], name="delivery_owed", condition=Q(next_at__isnull=False)),  # metrics
            models.Index(  # webhook_sender: what an endpoint is owed
                fields=["endpoint", "next_at"], name="delivery_owed_to", condition=Q(next_at__isnull=False)
            ),
            models.Index(fields=["endpoint", "-id"], name="delivery_of_endpoint"),  # the log, paged by key
            models.Index(fields=["created_at"], name="delivery_age"),  # webhooks.sweep
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.id}"

    @property
    def state(self) -> str:
        """`delivered`, `owed` (a try is to come) or `failed` (given up, or held while its endpoint is muted)."""
        return "delivered" if self.delivered_at else "owed" if self.next_at else "failed"
