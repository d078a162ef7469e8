"""The output of a SUCCEEDED job: the row makes a stored file exist."""

from django.db import models
from django.db.models.functions import Now

from .job import Job


class Damage(models.TextChoices):
    """How a stored file is not what its row says."""

    GONE = "gone", "not stored any more"
    SIZE = "size", "of another size"
    CONTENT = "content", "changed"


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
    checked_at = models.DateTimeField(null=True, editable=False)  # when the sweep last read the file whole
    damage = models.CharField(max_length=10, choices=Damage, null=True, editable=False)  # what the sweep found

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["job", "name"], name="output_name_once_per_job")]

    def __str__(self) -> str:
        return self.name
