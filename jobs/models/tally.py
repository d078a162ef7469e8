"""Totals for the metrics: what has happened since the first event, counted once."""

from django.db import models


class Tally(models.Model):
    """One series' total. It never goes down, whatever is deleted; only `jobs.tally` writes it."""

    series = models.CharField(max_length=40)
    labels = models.CharField(max_length=120, blank=True)  # their values, comma separated, in the series' order
    value = models.FloatField(default=0.0)  # counts are exact up to 2^53

    class Meta:
        constraints = [models.UniqueConstraint(fields=["series", "labels"], name="tally_once_per_series")]

    def __str__(self) -> str:
        return f"{self.series}({self.labels})"
