"""How long each watchman last took, what it did, and whether it is to run at once."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0018_stages"),
    ]

    operations = [
        migrations.AddField(
            model_name="tick",
            name="asked",
            field=models.BooleanField(db_default=False),
        ),
        migrations.AddField(
            model_name="tick",
            name="found",
            field=models.IntegerField(null=True),
        ),
        migrations.AddField(
            model_name="tick",
            name="seconds",
            field=models.FloatField(null=True),
        ),
    ]
