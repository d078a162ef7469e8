"""What a run said of its work, for the job's owner."""

from django.db import models


class LogLine(models.Model):
    """One line of an attempt's log; see `jobs.joblog` for how many and how long."""

    job = models.ForeignKey("jobs.Job", models.CASCADE, related_name="log", db_index=False)
    attempt = models.PositiveIntegerField()
    at = models.DateTimeField()  # by the clock of the worker's host
    text = models.CharField(max_length=300)

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["job", "id"], name="log_of_job")]

    def __str__(self) -> str:
        return self.text
