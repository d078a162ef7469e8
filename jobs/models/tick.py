"""The watchmen's clock: each Beat entry's last real run."""

from django.db import models
from django.db.models.functions import Now


class Tick(models.Model):
    """Taken by compare-and-set, so that two Beats, bursts and late messages do a period's work once."""

    name = models.CharField(primary_key=True, max_length=40)
    period = models.FloatField()  # seconds
    since = models.DateTimeField(db_default=Now())  # when the platform came to know this watchman
    ran_at = models.DateTimeField(null=True)
    seconds = models.FloatField(null=True)  # that the last run took
    found = models.IntegerField(null=True)  # what the last run returned; null: it failed, or none has ended
    asked = models.BooleanField(db_default=False)  # an operator wants it to run before its period is over

    def __str__(self) -> str:
        return self.name
