"""What a cleanup found and did."""

from django.db import models
from django.db.models.functions import Now


class CleanupRun(models.Model):
    """One run of cleanup_stuck_jobs, dry or real, by whoever asked."""

    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)
    by = models.CharField(max_length=80)  # beat, cron, command, or a user
    timeout = models.FloatField()  # seconds without a heartbeat
    batch_size = models.PositiveIntegerField()
    dry_run = models.BooleanField(default=False)
    found = models.PositiveIntegerField(default=0)
    retried = models.PositiveIntegerField(default=0)
    cleaned = models.PositiveIntegerField(default=0)  # retried or failed: no longer stuck
    failed = models.PositiveIntegerField(default=0)  # could not be settled: in `errors`
    tokens_refunded = models.BigIntegerField(default=0)
    jobs = models.JSONField(default=list)
    errors = models.JSONField(default=list)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"cleanup {self.id}: {self.cleaned} of {self.found}"
