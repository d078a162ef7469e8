"""How often a secret was tried of late."""

from django.db import models


class Throttle(models.Model):
    """One counter of `jobs.throttles`: of an address, an account, or a pair of them that is known."""

    key = models.CharField(primary_key=True, max_length=64)  # a keyed hash: no address and no name is kept
    free_at = models.FloatField(db_index=True)  # seconds since the epoch; when nothing is owed any more: the sweep

    def __str__(self) -> str:
        return self.key[:12]
