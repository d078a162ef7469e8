"""What all workers know of an outside service that fails."""

from django.db import models


class Breaker(models.Model):
    """Closed while `opened_at` is null. After the cool-down one caller at a time probes, marked by `probed_at`."""

    target = models.CharField(primary_key=True, max_length=40)
    failures = models.JSONField(default=list)  # times of the latest failures within the window, seconds since 1970
    opened_at = models.DateTimeField(null=True)
    probed_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.target
