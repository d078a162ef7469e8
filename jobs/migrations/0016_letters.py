"""Letters to users, and which of them each wants."""

import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

import jobs.models.job
from jobs import upkeep


def install(apps, schema_editor):
    """Beat's entry for them."""
    upkeep.install(
        periodic=apps.get_model("django_celery_beat", "PeriodicTask"),
        interval=apps.get_model("django_celery_beat", "IntervalSchedule"),
        tick=apps.get_model("jobs", "Tick"),
    )


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("jobs", "0015_remote_woken"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Preference",
            fields=[
                (
                    "owner",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="preference",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("mail_finished", models.BooleanField(default=True, verbose_name="Mail me when a job has finished")),
                ("mail_failed", models.BooleanField(default=True, verbose_name="Mail me when a job has failed")),
                (
                    "mail_after",
                    models.PositiveIntegerField(
                        default=5,
                        help_text="From submit to end; 0: about every job.",
                        validators=[django.core.validators.MaxValueValidator(100000)],
                        verbose_name="Only about jobs that took at least so many minutes",
                    ),
                ),
                (
                    "low_balance",
                    models.PositiveBigIntegerField(
                        default=10,
                        help_text="Once each time that it does; 0: never.",
                        validators=[django.core.validators.MaxValueValidator(1000000000000)],
                        verbose_name="Mail me when my balance falls below so many tokens",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Watermark",
            fields=[
                ("name", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("last", models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="Letter",
            fields=[
                (
                    "id",
                    models.UUIDField(default=jobs.models.job.uuid7, editable=False, primary_key=True, serialize=False),
                ),
                (
                    "about",
                    models.CharField(
                        choices=[
                            ("finished", "a job finished"),
                            ("failed", "a job failed"),
                            ("low_balance", "the balance is low"),
                        ],
                        max_length=12,
                    ),
                ),
                ("source", models.BigIntegerField()),
                ("subject", models.CharField(max_length=200)),
                ("body", models.TextField()),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), db_index=True),
                ),
                ("next_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), null=True)),
                ("tries", models.PositiveSmallIntegerField(default=0)),
                ("sent_at", models.DateTimeField(null=True)),
                ("error", models.CharField(blank=True, max_length=100)),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(condition=models.Q(("next_at__isnull", False)), fields=["next_at"], name="letter_owed")
                ],
                "constraints": [models.UniqueConstraint(fields=("about", "source"), name="letter_once_per_source")],
            },
        ),
        migrations.RunPython(install, migrations.RunPython.noop),
    ]
