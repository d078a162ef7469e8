"""Requests to outside services, and the sweep of those nobody waits for."""

import django.db.models.functions.datetime
from django.db import migrations, models

import jobs.models.job
from jobs import upkeep


def install(apps, schema_editor):
    """Beat's entry for the sweep."""
    upkeep.install(
        periodic=apps.get_model("django_celery_beat", "PeriodicTask"),
        interval=apps.get_model("django_celery_beat", "IntervalSchedule"),
        tick=apps.get_model("jobs", "Tick"),
    )


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0004_views"),
    ]

    operations = [
        migrations.CreateModel(
            name="RemoteCall",
            fields=[
                (
                    "id",
                    models.UUIDField(default=jobs.models.job.uuid7, editable=False, primary_key=True, serialize=False),
                ),
                ("provider", models.CharField(max_length=20)),
                ("job_id", models.UUIDField()),
                ("attempt", models.PositiveIntegerField()),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("intended", "sent, or about to be; not known whether it was taken"),
                            ("started", "taken by the service"),
                            ("cancel_wanted", "to be cancelled"),
                            ("ended", "over"),
                        ],
                        default="intended",
                        max_length=13,
                    ),
                ),
                ("remote_id", models.CharField(blank=True, max_length=100)),
                ("outcome", models.CharField(blank=True, max_length=40)),
                ("cancel_tries", models.PositiveIntegerField(default=0)),
                ("error", models.CharField(blank=True, max_length=200)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("ends_at", models.DateTimeField()),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("state", "ended"), _negated=True), fields=["created_at"], name="remote_open"
                    ),
                    models.Index(fields=["job_id"], name="remote_of_job"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("state__in", ["intended", "started"])),
                        fields=("job_id",),
                        name="remote_one_waited_for_per_job",
                    )
                ],
            },
        ),
        migrations.RunPython(install, migrations.RunPython.noop),
    ]
