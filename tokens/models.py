"""What an account holds and every booking that led there. The rules of money are constraints of the database:

- a balance is a whole number from 0 to `MOST`;
- a booking's sign follows from its kind, and it is never changed or removed (triggers, see `tokens.triggers`);
- a reference is charged once, and a shop's reference is bought or granted once;
- a charge is refunded once, to the same account, and never by more than was taken (the last two by trigger).

Only `tokens.ledger` writes these tables.
"""

from django.conf import settings
from django.db import models
from django.db.models import F, Func, Q
from django.db.models.functions import Now

MOST = 10**12  # whole tokens: the largest balance, and the largest amount of one booking
REFERENCE_LENGTH = 200  # characters
KEY_LENGTH = 255  # characters


class IsWhole(Func):
    """True where a stored number is an integer. SQLite keeps 1.5, or 2**63 as 9.2e18, in an integer column as it came;
    PostgreSQL's columns cannot hold such a thing."""

    arity = 1
    output_field = models.BooleanField()
    template = "%(expressions)s IS NOT NULL"

    def as_sqlite(self, compiler, connection, **context):
        return self.as_sql(compiler, connection, template="typeof(%(expressions)s) = 'integer'", **context)


class Account(models.Model):
    """What a user can spend. Its primary key is the user's id."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.PROTECT, primary_key=True, related_name="account")
    balance = models.BigIntegerField(default=0)  # whole tokens; always the sum of the account's transactions

    class Meta:
        permissions = [("grant_tokens", "Can grant tokens")]
        constraints = [
            models.CheckConstraint(
                name="account_balance_whole_in_bounds", condition=Q(IsWhole("balance"), balance__range=(0, MOST))
            ),
        ]

    def __str__(self) -> str:
        return f"account of {self.user}"


class Transaction(models.Model):
    """One booking: a line of the ledger. Append-only by trigger; what was wrong is set right by another booking."""

    class Kind(models.TextChoices):
        GRANT = "GRANT"  # given
        PURCHASE = "PURCHASE"  # bought in a shop; `reference` is the shop's order
        CHARGE = "CHARGE"  # spent; `reference` says on what
        REFUND = "REFUND"  # a charge given back, whole or in part; `reverses` is that charge
        ADJUSTMENT = "ADJUSTMENT"  # set right by an operator, up or down

    id = models.BigAutoField(primary_key=True)
    account = models.ForeignKey(Account, models.PROTECT, related_name="transactions", db_index=False)
    kind = models.CharField(max_length=10, choices=Kind)
    amount = models.BigIntegerField()  # whole tokens, signed: what the balance changed by
    balance_after = models.BigIntegerField()
    reference = models.CharField(max_length=REFERENCE_LENGTH, blank=True)
    reason = models.TextField(blank=True)
    idempotency_key = models.CharField(max_length=KEY_LENGTH, null=True, blank=True)
    reverses = models.OneToOneField("self", models.PROTECT, null=True, blank=True, related_name="refund")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="transaction_amount_whole_in_bounds", condition=Q(IsWhole("amount"), amount__range=(-MOST, MOST))
            ),
            models.CheckConstraint(
                name="transaction_balance_after_whole_in_bounds",
                condition=Q(IsWhole("balance_after"), balance_after__range=(0, MOST)),
            ),
            models.CheckConstraint(
                name="transaction_sign_of_kind",
                condition=Q(kind__in=["GRANT", "PURCHASE", "REFUND"], amount__gt=0)
                | Q(kind="CHARGE", amount__lt=0)
                | (Q(kind="ADJUSTMENT") & ~Q(amount=0)),
            ),
            models.CheckConstraint(
                name="transaction_reverses_iff_refund",
                condition=Q(kind="REFUND", reverses__isnull=False) | (~Q(kind="REFUND") & Q(reverses=None)),
            ),
            models.CheckConstraint(
                name="transaction_charge_has_reference", condition=~Q(kind="CHARGE") | ~Q(reference="")
            ),
            models.UniqueConstraint(
                name="transaction_one_charge_per_reference", fields=["reference"], condition=Q(kind="CHARGE")
            ),
            models.UniqueConstraint(  # a shop's order books once, whoever sends it how often
                name="transaction_one_booking_per_reference",
                fields=["kind", "reference"],
                condition=Q(kind__in=["GRANT", "PURCHASE"]) & ~Q(reference=""),
            ),
            models.UniqueConstraint(
                name="transaction_one_per_idempotency_key",
                fields=["account", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
            ),
        ]
        indexes = [
            models.Index("account", F("id").desc(), name="transaction_history"),  # the history, newest first
            models.Index(  # the volume of refunds, watched by the minute; a condition that SQLite proves, too
                fields=["created_at"], name="transaction_refunded", condition=Q(reverses__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount:+d}"
