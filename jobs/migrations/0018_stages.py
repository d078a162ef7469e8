"""How long each stage of an attempt took, with the event that ended it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0017_deadlines"),
    ]

    operations = [
        migrations.AddField(
            model_name="jobevent",
            name="stages",
            field=models.JSONField(null=True),
        ),
        migrations.AddIndex(
            model_name="jobevent",
            index=models.Index(condition=models.Q(("stages__isnull", False)), fields=["at"], name="event_staged"),
        ),
    ]
