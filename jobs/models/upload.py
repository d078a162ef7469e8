"""A file that a user brought: an input waiting for a job."""

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from .job import uuid7


class Upload(models.Model):
    """Stored under a key of our own; `name` is only what the user called it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="uploads")
    name = models.CharField(max_length=200)
    key = models.CharField(max_length=200, unique=True)  # uploads/<id>
    bytes = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    content_type = models.CharField(max_length=80)  # judged from the bytes
    cut = models.BooleanField(db_default=False)  # a film or sound that ends before its own index does
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"
