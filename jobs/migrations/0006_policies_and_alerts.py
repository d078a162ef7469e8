"""Policies, what a job gives back when it is cancelled, and alerts."""

import django.core.validators
from django.db import migrations, models

from jobs import upkeep


def install(apps, schema_editor):
    """Beat's entry for the alerts."""
    upkeep.install(
        periodic=apps.get_model("django_celery_beat", "PeriodicTask"),
        interval=apps.get_model("django_celery_beat", "IntervalSchedule"),
        tick=apps.get_model("jobs", "Tick"),
    )


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0005_remote"),
    ]

    operations = [
        migrations.CreateModel(
            name="Alert",
            fields=[
                ("code", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("began_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
                ("detail", models.CharField(blank=True, max_length=300)),
                ("messages", models.PositiveIntegerField(default=0)),
                ("sent_at", models.DateTimeField(null=True)),
                ("owed", models.JSONField(default=list)),
                ("snoozed_until", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ["code"],
            },
        ),
        migrations.AddField(
            model_name="job",
            name="cancel_refund",
            field=models.CharField(
                choices=[("full", "the whole price"), ("unused", "the part not yet worked for"), ("none", "nothing")],
                max_length=6,
                null=True,
            ),
        ),
        migrations.CreateModel(
            name="Policy",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(max_length=20)),
                (
                    "tier",
                    models.CharField(
                        blank=True, help_text="Empty: every tier that has no line of its own.", max_length=10
                    ),
                ),
                (
                    "price_percent",
                    models.PositiveSmallIntegerField(
                        blank=True,
                        help_text="Of the kind's own price, 0 to 1000; rounded up to whole tokens. Empty: 100.",
                        null=True,
                        validators=[django.core.validators.MaxValueValidator(1000)],
                        verbose_name="price, %",
                    ),
                ),
                (
                    "run_limit",
                    models.FloatField(
                        blank=True,
                        help_text="Seconds that one attempt may take.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(1)],
                    ),
                ),
                (
                    "stall_limit",
                    models.FloatField(
                        blank=True,
                        help_text="Seconds without progress or a sign of life.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(1)],
                    ),
                ),
                (
                    "max_attempts",
                    models.PositiveSmallIntegerField(
                        blank=True,
                        help_text="1 to 10: what a job gets, and the most that a request may ask for.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(10),
                        ],
                    ),
                ),
                (
                    "timeout_seconds",
                    models.FloatField(
                        blank=True,
                        help_text="Seconds without a heartbeat that make it stuck for the cleanup.",
                        null=True,
                        verbose_name="cleanup timeout",
                    ),
                ),
                (
                    "stale_action",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("retry_then_fail", "try again while attempts are left, then fail"),
                            ("fail", "fail at once, refunded"),
                        ],
                        max_length=15,
                        verbose_name="when stuck",
                    ),
                ),
                (
                    "cancel_refund",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("full", "the whole price"),
                            ("unused", "the part not yet worked for"),
                            ("none", "nothing"),
                        ],
                        max_length=6,
                        verbose_name="refund if cancelled while it runs",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "policies",
                "ordering": ["kind", "tier"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("kind", "tier"),
                        name="policy_one_per_kind_and_tier",
                        violation_error_message="There is a policy for this kind and tier already; change that one.",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("price_percent__lte", 1000)), name="policy_price_in_bounds"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("run_limit", None), ("run_limit__range", (1, 604800)), _connector="OR"),
                            models.Q(("stall_limit", None), ("stall_limit__range", (1, 604800)), _connector="OR"),
                            models.Q(
                                ("timeout_seconds", None), ("timeout_seconds__range", (15, 604800)), _connector="OR"
                            ),
                            models.Q(("max_attempts", None), ("max_attempts__range", (1, 10)), _connector="OR"),
                        ),
                        name="policy_limits_in_bounds",
                    ),
                ],
            },
        ),
        migrations.RunPython(install, migrations.RunPython.noop),
    ]
