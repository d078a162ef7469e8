import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

import tokens.models
from tokens import triggers


def install_triggers(apps, schema_editor):
    triggers.install(schema_editor.connection)


def remove_triggers(apps, schema_editor):
    triggers.remove(schema_editor.connection)


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Account",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="account",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("balance", models.BigIntegerField(default=0)),
            ],
            options={
                "permissions": [("grant_tokens", "Can grant tokens")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(tokens.models.IsWhole("balance"), ("balance__range", (0, 1000000000000))),
                        name="account_balance_whole_in_bounds",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Transaction",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("GRANT", "Grant"),
                            ("PURCHASE", "Purchase"),
                            ("CHARGE", "Charge"),
                            ("REFUND", "Refund"),
                            ("ADJUSTMENT", "Adjustment"),
                        ],
                        max_length=10,
                    ),
                ),
                ("amount", models.BigIntegerField()),
                ("balance_after", models.BigIntegerField()),
                ("reference", models.CharField(blank=True, max_length=200)),
                ("reason", models.TextField(blank=True)),
                ("idempotency_key", models.CharField(blank=True, max_length=255, null=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "account",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="transactions",
                        to="tokens.account",
                    ),
                ),
                (
                    "reverses",
                    models.OneToOneField(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="refund",
                        to="tokens.transaction",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        models.F("account"), models.OrderBy(models.F("id"), descending=True), name="transaction_history"
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            tokens.models.IsWhole("amount"), ("amount__range", (-1000000000000, 1000000000000))
                        ),
                        name="transaction_amount_whole_in_bounds",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            tokens.models.IsWhole("balance_after"), ("balance_after__range", (0, 1000000000000))
                        ),
                        name="transaction_balance_after_whole_in_bounds",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("amount__gt", 0), ("kind__in", ["GRANT", "PURCHASE", "REFUND"])),
                            models.Q(("amount__lt", 0), ("kind", "CHARGE")),
                            models.Q(("kind", "ADJUSTMENT"), models.Q(("amount", 0), _negated=True)),
                            _connector="OR",
                        ),
                        name="transaction_sign_of_kind",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("kind", "REFUND"), ("reverses__isnull", False)),
                            models.Q(models.Q(("kind", "REFUND"), _negated=True), ("reverses", None)),
                            _connector="OR",
                        ),
                        name="transaction_reverses_iff_refund",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("kind", "CHARGE"), _negated=True),
                            models.Q(("reference", ""), _negated=True),
                            _connector="OR",
                        ),
                        name="transaction_charge_has_reference",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("kind", "CHARGE")),
                        fields=("reference",),
                        name="transaction_one_charge_per_reference",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(
                            ("kind__in", ["GRANT", "PURCHASE"]), models.Q(("reference", ""), _negated=True)
                        ),
                        fields=("kind", "reference"),
                        name="transaction_one_booking_per_reference",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("idempotency_key__isnull", False)),
                        fields=("account", "idempotency_key"),
                        name="transaction_one_per_idempotency_key",
                    ),
                ],
            },
        ),
        migrations.RunPython(install_triggers, remove_triggers),
    ]
