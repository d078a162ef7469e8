"""Webhooks: endpoints and deliveries. An alert's message is taken with a lease."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

import jobs.models.job
from jobs import upkeep


def install(apps, schema_editor):
    """Beat's entry for the deliveries."""
    upkeep.install(
        periodic=apps.get_model("django_celery_beat", "PeriodicTask"),
        interval=apps.get_model("django_celery_beat", "IntervalSchedule"),
        tick=apps.get_model("jobs", "Tick"),
    )


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0010_tally"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="alert",
            name="sent_by",
            field=models.DateTimeField(null=True),
        ),
        migrations.CreateModel(
            name="Endpoint",
            fields=[
                (
                    "id",
                    models.UUIDField(default=jobs.models.job.uuid7, editable=False, primary_key=True, serialize=False),
                ),
                ("url", models.CharField(max_length=500)),
                ("description", models.CharField(blank=True, max_length=80)),
                ("types", models.JSONField(default=list)),
                ("salt", models.CharField(max_length=32)),
                ("hint", models.CharField(max_length=4)),
                ("old_salt", models.CharField(blank=True, max_length=32)),
                ("old_until", models.DateTimeField(null=True)),
                ("cursor", models.BigIntegerField()),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "muted",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("off", "switched off by hand"),
                            ("gone", "its host answered 410 Gone"),
                            ("failing", "its host took nothing for a day and longer"),
                        ],
                        max_length=10,
                    ),
                ),
                ("muted_at", models.DateTimeField(null=True)),
                ("tell_at", models.DateTimeField(null=True)),
                ("failures", models.PositiveIntegerField(default=0)),
                ("failing_since", models.DateTimeField(null=True)),
                ("rest_until", models.DateTimeField(null=True)),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="webhooks",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="Delivery",
            fields=[
                (
                    "id",
                    models.UUIDField(default=jobs.models.job.uuid7, editable=False, primary_key=True, serialize=False),
                ),
                ("event", models.BigIntegerField(null=True)),
                ("job", models.UUIDField(null=True)),
                ("type", models.CharField(max_length=40)),
                ("body", models.TextField()),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("next_at", models.DateTimeField(null=True)),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("tries", models.PositiveSmallIntegerField(default=0)),
                ("delivered_at", models.DateTimeField(null=True)),
                ("log", models.JSONField(default=list)),
                (
                    "endpoint",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deliveries",
                        to="jobs.endpoint",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "deliveries",
                "ordering": ["-id"],
            },
        ),
        migrations.AddConstraint(
            model_name="endpoint",
            constraint=models.CheckConstraint(
                condition=models.Q(("muted", ""), ("muted_at__isnull", False), _connector="XOR"),
                name="endpoint_muted_since",
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("next_at__isnull", False)), fields=["next_at"], name="delivery_owed"
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("next_at__isnull", False)), fields=["endpoint", "next_at"], name="delivery_owed_to"
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(fields=["endpoint", "-id"], name="delivery_of_endpoint"),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(fields=["created_at"], name="delivery_age"),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.UniqueConstraint(fields=("event", "endpoint"), name="delivery_once_per_event"),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.CheckConstraint(
                condition=models.Q(("delivered_at", None), ("next_at", None), _connector="OR"),
                name="delivery_ended_or_owed",
            ),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.CheckConstraint(
                condition=models.Q(("tries__lte", models.F("attempts"))), name="delivery_tries_are_attempts"
            ),
        ),
        migrations.RunPython(install, migrations.RunPython.noop),
    ]
