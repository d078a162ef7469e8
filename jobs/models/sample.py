"""The platform's figures minute by minute: what no list of rows could tell later, or not quickly."""

from django.db import models


class Sample(models.Model):
    """One minute, written by the upkeep: how things stood at its end, and what ended since the sample before."""

    at = models.DateTimeField(unique=True)
    queued = models.PositiveIntegerField()  # waiting jobs, counted to stats.CAP a queue
    oldest_wait = models.FloatField()  # seconds
    running = models.PositiveIntegerField()
    free_slots = models.PositiveIntegerField()
    succeeded = models.PositiveIntegerField()
    failed = models.PositiveIntegerField()
    canceled = models.PositiveIntegerField()
    earned = models.BigIntegerField()  # whole tokens: the prices of those that succeeded
    refunded = models.BigIntegerField()  # whole tokens, from the ledger
