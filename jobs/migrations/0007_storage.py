"""Uploads in parts; what the daily sweep finds of outputs; Beat's entry for the retention."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

import jobs.models.job
from jobs import upkeep

DAMAGE = [("gone", "not stored any more"), ("size", "of another size"), ("content", "changed")]


def install(apps, schema_editor):
    """Beat's entry for the retention."""
    upkeep.install(
        periodic=apps.get_model("django_celery_beat", "PeriodicTask"),
        interval=apps.get_model("django_celery_beat", "IntervalSchedule"),
        tick=apps.get_model("jobs", "Tick"),
    )


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0006_policies_and_alerts"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="PartUpload",
            fields=[
                (
                    "id",
                    models.UUIDField(default=jobs.models.job.uuid7, editable=False, primary_key=True, serialize=False),
                ),
                ("name", models.CharField(max_length=200)),
                ("key", models.CharField(max_length=200, unique=True)),
                ("upload_id", models.TextField()),
                ("bytes", models.BigIntegerField()),
                ("sha256", models.CharField(max_length=64)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
        ),
        migrations.AddField("artifact", "checked_at", models.DateTimeField(editable=False, null=True)),
        migrations.AddField(
            "artifact", "damage", models.CharField(choices=DAMAGE, editable=False, max_length=10, null=True)
        ),
        migrations.RunPython(install, migrations.RunPython.noop),
    ]
