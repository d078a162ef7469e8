"""The operator's first screen: a sample a minute, Beat's entry for it, and the index of what ended when."""

from django.conf import settings
from django.db import migrations, models

from jobs import upkeep


def install(apps, schema_editor):
    """Beat's entry for the samples."""
    upkeep.install(
        periodic=apps.get_model("django_celery_beat", "PeriodicTask"),
        interval=apps.get_model("django_celery_beat", "IntervalSchedule"),
        tick=apps.get_model("jobs", "Tick"),
    )


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0013_throttle"),
        ("tokens", "0002_refunds_by_time"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Sample",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(unique=True)),
                ("queued", models.PositiveIntegerField()),
                ("oldest_wait", models.FloatField()),
                ("running", models.PositiveIntegerField()),
                ("free_slots", models.PositiveIntegerField()),
                ("succeeded", models.PositiveIntegerField()),
                ("failed", models.PositiveIntegerField()),
                ("canceled", models.PositiveIntegerField()),
                ("earned", models.BigIntegerField()),
                ("refunded", models.BigIntegerField()),
            ],
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("finished_at__isnull", False)),
                fields=["status", "finished_at", "kind", "error_code", "price"],
                name="job_ended",
            ),
        ),
        migrations.RunPython(install, migrations.RunPython.noop),
    ]
