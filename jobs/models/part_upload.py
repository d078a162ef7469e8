"""A large file on its way in: sent in parts straight to S3, not yet an upload."""

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from .job import uuid7


class PartUpload(models.Model):
    """Announced by its owner; `complete` makes an Upload of the same id of it, the daily sweep gives it up."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    name = models.CharField(max_length=200)
    key = models.CharField(max_length=200, unique=True)  # uploads/<id>
    upload_id = models.TextField()  # S3's
    bytes = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)  # as announced; may be empty
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"
