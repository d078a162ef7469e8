"""The output of a SUCCEEDED job: the row makes a stored file exist."""

from django.db import models
from django.db.models.functions import Now

from .job import Job


class Artifact(models.Model):
    """A named output. The same transaction that sets SUCCEEDED creates it, no other."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="outputs")
    attempt = models.PositiveIntegerField()
    name = models.CharField(max_length=100)
    key = models.CharField(max_length=200, unique=True)  # in the storage: jobs/<id>/<attempt>/<name>
    bytes = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    content_type = models.CharField(max_length=80)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["job", "name"], name="output_name_once_per_job")]

    def __str__(self) -> str:
        return self.name
