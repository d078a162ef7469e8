"""API keys: 256 random bits, kept as a hash."""

from django.conf import settings
from django.db import models
from django.db.models.functions import Now


class Scope(models.TextChoices):
    USER = "user", "one's own jobs and tokens"
    VIEWER = "viewer", "reads everything"
    OPERATOR = "operator", "acts on every job"
    FINANCE = "finance", "books tokens"
    ADMIN = "admin", "everything"


class ApiKey(models.Model):
    """The secret is shown once, by `jobs.keys.issue`; the row knows its hash and first characters."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=80)
    prefix = models.CharField(max_length=12)  # for people to tell keys apart
    digest = models.CharField(max_length=64, unique=True)  # SHA-256; a random key needs no slow hash
    scope = models.CharField(max_length=10, choices=Scope, default=Scope.USER)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)  # written at most once a minute

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"
