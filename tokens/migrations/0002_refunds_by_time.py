"""An index for the volume of refunds; on SQLite it leaves the table, and its triggers, as they are."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tokens", "0001_initial"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="transaction",
            index=models.Index(
                condition=models.Q(("reverses__isnull", False)), fields=["created_at"], name="transaction_refunded"
            ),
        ),
    ]
