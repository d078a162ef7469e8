"""Mail that a user is owed, and what mail each wants."""

from django.conf import settings
from django.core.validators import MaxValueValidator
from django.db import models
from django.db.models.functions import Now

from .job import uuid7


class Preference(models.Model):
    """What a user wants to be told by mail. Who has no row has the defaults."""

    owner = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="preference")
    mail_finished = models.BooleanField("Mail me when a job has finished", default=True)
    mail_failed = models.BooleanField("Mail me when a job has failed", default=True)
    mail_after = models.PositiveIntegerField(
        "Only about jobs that took at least so many minutes",
        default=5,
        validators=[MaxValueValidator(100_000)],
        help_text="From submit to end; 0: about every job.",
    )
    low_balance = models.PositiveBigIntegerField(
        "Mail me when my balance falls below so many tokens",
        default=10,
        validators=[MaxValueValidator(10**12)],
        help_text="Once each time that it does; 0: never.",
    )

    def __str__(self) -> str:
        return f"preferences of {self.owner_id}"


class About(models.TextChoices):
    """What a letter tells, and what its `source` is."""

    FINISHED = "finished", "a job finished"  # its JobEvent
    FAILED = "failed", "a job failed"  # the same
    LOW = "low_balance", "the balance is low"  # the ledger's line


class Letter(models.Model):
    """One mail to one user. Written by `jobs.mail` when its event is read; the text goes when it was sent."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)  # Message-ID, the same on every try
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    about = models.CharField(max_length=12, choices=About)
    source = models.BigIntegerField()
    subject = models.CharField(max_length=200)
    body = models.TextField()
    created_at = models.DateTimeField(db_default=Now(), db_index=True)
    next_at = models.DateTimeField(null=True, db_default=Now())  # owed from then on; null: sent, or given up
    tries = models.PositiveSmallIntegerField(default=0)  # who raises it makes the try: compare-and-set
    sent_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=100, blank=True)  # why the last try failed

    class Meta:
        constraints = [models.UniqueConstraint(fields=["about", "source"], name="letter_once_per_source")]
        indexes = [
            models.Index(fields=["next_at"], name="letter_owed", condition=models.Q(next_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.about} {self.id}"


class Watermark(models.Model):
    """Up to which row a table was read, by whom."""

    name = models.CharField(primary_key=True, max_length=40)
    last = models.BigIntegerField()

    def __str__(self) -> str:
        return self.name
