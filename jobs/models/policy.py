"""What an operator wants of a kind of job, or of one tier of it, other than the kind itself says."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

WEEK = 604_800  # seconds: no limit is longer


class StaleAction(models.TextChoices):
    """What becomes of a job whose worker fell silent."""

    RETRY = "retry_then_fail", "try again while attempts are left, then fail"
    FAIL = "fail", "fail at once, refunded"


class CancelRefund(models.TextChoices):
    """What a job gives back that is cancelled while it runs."""

    FULL = "full", "the whole price"
    UNUSED = "unused", "the part not yet worked for"
    NONE = "none", "nothing"


class Policy(models.Model):
    """One line of the operator's rules; an empty field leaves it to the line of the whole kind, else to the kind.

    Money and limits are what later submits are sold with; a job that was sold keeps its own.
    """

    kind = models.CharField(max_length=20)
    tier = models.CharField(max_length=10, blank=True, help_text="Empty: every tier that has no line of its own.")
    price_percent = models.PositiveSmallIntegerField(
        "price, %",
        null=True,
        blank=True,
        validators=[MaxValueValidator(1000)],
        help_text="Of the kind's own price, 0 to 1000; rounded up to whole tokens. Empty: 100.",
    )
    run_limit = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(1)], help_text="Seconds that one attempt may take."
    )
    stall_limit = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Seconds without progress or a sign of life.",
    )
    max_attempts = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(10)],
        help_text="1 to 10: what a job gets, and the most that a request may ask for.",
    )
    timeout_seconds = models.FloatField(
        "cleanup timeout",
        null=True,
        blank=True,
        help_text="Seconds without a heartbeat that make it stuck for the cleanup.",
    )
    stale_action = models.CharField("when stuck", max_length=15, blank=True, choices=StaleAction)
    cancel_refund = models.CharField(
        "refund if cancelled while it runs", max_length=6, blank=True, choices=CancelRefund
    )

    class Meta:
        ordering = ["kind", "tier"]
        verbose_name_plural = "policies"
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "tier"],
                name="policy_one_per_kind_and_tier",
                violation_error_message="There is a policy for this kind and tier already; change that one.",
            ),
            models.CheckConstraint(name="policy_price_in_bounds", condition=Q(price_percent__lte=1000)),
            models.CheckConstraint(
                name="policy_limits_in_bounds",
                condition=(Q(run_limit=None) | Q(run_limit__range=(1, WEEK)))
                & (Q(stall_limit=None) | Q(stall_limit__range=(1, WEEK)))
                & (Q(timeout_seconds=None) | Q(timeout_seconds__range=(15, WEEK)))
                & (Q(max_attempts=None) | Q(max_attempts__range=(1, 10))),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.tier}".strip()
