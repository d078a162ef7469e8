"""Which request already made which job, or which upload."""

from django.conf import settings
from django.db import models
from django.db.models.functions import Now


class IdempotencyKey(models.Model):
    """Written in the submit's own transaction. Outlives a deleted job by 24 hours, so `job_id` is no foreign key; it
    may be an upload's id, too."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", db_index=False)
    key = models.CharField(max_length=255)
    body_hash = models.CharField(max_length=64)
    job_id = models.UUIDField(db_index=True)
    created_at = models.DateTimeField(db_default=Now())
    job_deleted_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "key"], name="idempotency_key_once_per_owner")]
