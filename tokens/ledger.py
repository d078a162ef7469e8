"""Every change of a balance: the only writer of `Account.balance` and `Transaction`.

The condition is in the UPDATE, so two at once cannot both spend the last token; what must never be is forbidden by the
database (see `tokens.models`), not by an `if` here. Each function works in the caller's transaction, or in one of its
own where there is none. `charge` and the refunds make no savepoint: after an IntegrityError or DoesNotExist of theirs
the caller's innermost `atomic` block can only roll back.
"""

import json

from django.db import IntegrityError, connection, transaction
from django.db.models import F, Sum
from django.db.models.functions import Coalesce

from .models import KEY_LENGTH, MOST, REFERENCE_LENGTH, Account, Transaction

Kind = Transaction.Kind
BOOKED = [field.attname for field in Transaction._meta.concrete_fields if field.name != "created_at"]

# What is to be given back comes as one JSON list of [charge id, reason, amount or null], so each statement stays the
# same for any number. A line's balance is the account's new one less what the lines after it give.
WANTED = {
    "postgresql": "SELECT (value ->> 0)::bigint, value ->> 1, (value ->> 2)::bigint FROM json_array_elements(%s)",
    "sqlite": "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')"
    " FROM json_each(%s)",
}
OWED = """
WITH wanted (charge_id, reason, part) AS ({wanted}), owed AS (
    SELECT id, account_id, reference, wanted.reason, COALESCE(part, -amount) AS amount
    FROM wanted JOIN tokens_transaction ON id = charge_id WHERE kind = 'CHARGE'
)"""
LOCK_ACCOUNTS = """
SELECT FROM tokens_account WHERE user_id IN (SELECT account_id FROM owed) ORDER BY user_id FOR NO KEY UPDATE"""
GIVE_BACK = """
UPDATE tokens_account SET balance = balance + total
FROM (SELECT account_id, SUM(amount) AS total FROM owed GROUP BY account_id) AS bill WHERE user_id = account_id"""
BOOK_REFUNDS = f"""
INSERT INTO tokens_transaction (account_id, kind, amount, balance_after, reference, reason, reverses_id)
SELECT account_id, 'REFUND', amount, balance + amount - SUM(amount) OVER (PARTITION BY account_id ORDER BY id DESC),
       reference, reason, id
FROM owed JOIN tokens_account ON user_id = account_id ORDER BY id
RETURNING {", ".join(BOOKED)}"""  # noqa: S608 - made of our own constants

CHARGE = """
paid AS (UPDATE tokens_account SET balance = balance - %s WHERE user_id = %s AND balance >= %s
         RETURNING user_id, balance),
charged AS (INSERT INTO tokens_transaction (account_id, kind, amount, balance_after, reference, reason)
            SELECT user_id, 'CHARGE', %s, balance, %s, '' FROM paid RETURNING id, balance_after)"""


class LedgerError(Exception):
    """A booking that is refused; nothing of it is written."""


class InsufficientTokens(LedgerError):
    """The account holds fewer tokens than that, or does not exist."""

    def __init__(self, account_id: int, amount: int):
        super().__init__(f"account {account_id} holds fewer than {amount} tokens")
        self.account_id, self.amount = account_id, amount


class BalanceTooLarge(LedgerError):
    """The balance would exceed `MOST`."""


class KeyReused(LedgerError):
    """The account has another booking under this idempotency key."""


class ReferenceUsed(LedgerError):
    """This reference was bought, or granted, before."""


def open_account(user_id: int) -> Account:
    """The user's account, made with 0 tokens if there is none yet."""
    return Account.objects.get_or_create(pk=user_id)[0]


def grant(
    account_id: int, amount: int, *, reference: str = "", reason: str = "", key: str | None = None
) -> Transaction:
    """Give `amount` whole tokens (at least 1).

    The same `key` with the same content returns the first booking and writes nothing. Raises KeyReused for the same key
    with other content, ReferenceUsed for a non-empty reference that was granted before, BalanceTooLarge, and
    Account.DoesNotExist.
    """
    return _give(Kind.GRANT, account_id, amount, reference, reason, key)


def purchase(
    account_id: int, amount: int, *, reference: str = "", reason: str = "", key: str | None = None
) -> Transaction:
    """Book tokens that were bought; `reference` is the shop's order. Otherwise the same as `grant`."""
    return _give(Kind.PURCHASE, account_id, amount, reference, reason, key)


def adjust(account_id: int, amount: int, *, reason: str) -> Transaction:
    """Set a balance right by `amount` whole tokens, up or down. The reason may not be empty.

    Raises InsufficientTokens if the balance would go below 0, else as `grant`.
    """
    if type(amount) is not int or not 1 <= abs(amount) <= MOST:
        raise ValueError(f"an adjustment is a whole number other than 0 within {MOST}, not {amount!r:.50}")
    if not _text("reason", reason).strip():
        raise ValueError("an adjustment needs a reason")
    with transaction.atomic():
        balance = _move(account_id, amount)
        if balance is None and amount < 0:
            raise InsufficientTokens(account_id, -amount)
        return _book(account_id, Kind.ADJUSTMENT, amount, balance, reason=reason)


def charge(account_id: int, amount: int, *, reference: str) -> Transaction:
    """Take `amount` whole tokens (at least 1) for `reference`. Without a savepoint; one statement on PostgreSQL.

    Raises InsufficientTokens (nothing written, and the caller's transaction may go on), or IntegrityError when
    `reference` was charged before.
    """
    if connection.vendor == "postgresql":
        booked = _charge_at_once(account_id, amount, reference)
        if booked is not None:
            return booked
    else:
        _chargeable(amount, reference)
        with transaction.atomic(savepoint=False):
            balance = _move(account_id, -amount)
            if balance is not None:
                return _book(account_id, Kind.CHARGE, -amount, balance, reference=reference)
    raise InsufficientTokens(account_id, amount)  # out here, so that the caller's transaction is not marked


def charging(account_id: int, amount: int, *, reference: str) -> tuple[str, list[int | str]]:
    """`charge` as parts of a caller's WITH and their parameters, for PostgreSQL, which writes all of a WITH or nothing:
    the part `charged` has the booking's id and balance_after, or no row if the account holds too little."""
    _chargeable(amount, reference)
    return CHARGE, [amount, account_id, amount, -amount, reference]


def refund(charge_id: int, *, reason: str, amount: int | None = None) -> Transaction:
    """Give one CHARGE back: in full, or `amount` tokens of it; once either way.

    Raises Transaction.DoesNotExist if there is no such charge, IntegrityError (by the database) for a second refund of
    it, more than was charged, or a balance beyond `MOST`.
    """
    if amount is not None:
        _positive(amount)
    (booked,) = _refund([(charge_id, reason, amount)])
    return Transaction.from_db(connection.alias, BOOKED, booked)


def refund_many(charges: list[tuple[int, str]]) -> dict[int, int]:
    """Give many charges, as (charge id, reason), back in full. Returns the tokens given back by charge id.

    All or nothing: raises as `refund` does if one of them cannot be. As many statements for thousands as for two;
    accounts are locked in the order of their ids, so two of these at once do not deadlock.
    """
    booked = _refund([(charge_id, reason, None) for charge_id, reason in charges])
    charge, amount = BOOKED.index("reverses_id"), BOOKED.index("amount")
    return {refund[charge]: refund[amount] for refund in booked}


def drifted() -> list[tuple[int, int, int]]:
    """Accounts whose balance is not the sum of their ledger, as (account id, balance, ledger's sum), by id.

    One statement, so it sees one moment also while others book. Reads the whole ledger.
    """
    accounts = Account.objects.annotate(ledger=Coalesce(Sum("transactions__amount"), 0))
    return list(accounts.exclude(balance=F("ledger")).order_by("pk").values_list("pk", "balance", "ledger"))


def _give(kind: Kind, account_id: int, amount: int, reference: str, reason: str, key: str | None) -> Transaction:
    _positive(amount)
    _text("reference", reference, REFERENCE_LENGTH)
    _text("reason", reason)
    if key is not None and not _text("key", key, KEY_LENGTH):
        raise ValueError("a key may be None but not empty")
    content = {"kind": kind, "amount": amount, "reference": reference, "reason": reason}
    try:
        with transaction.atomic():
            balance = _move(account_id, amount)
            return _book(account_id, kind, amount, balance, reference=reference, reason=reason, key=key)
    except (IntegrityError, BalanceTooLarge):
        # Asked only now, since nearly every booking is a first one. Who waited here for another's lock sees its rows.
        first = key and Transaction.objects.filter(account_id=account_id, idempotency_key=key).first()
        if first:
            if any(getattr(first, name) != value for name, value in content.items()):
                raise KeyReused(f"account {account_id} has another booking under this key") from None
            return first
        if reference and Transaction.objects.filter(kind=kind, reference=reference).exists():
            raise ReferenceUsed(f"{kind.label.lower()} {reference} was booked before") from None
        raise


def _refund(wanted: list[tuple[int, str, int | None]]) -> list[tuple]:
    """Book one REFUND each for (charge id, reason, amount or None for all of it). Returns their columns BOOKED."""
    if not wanted:
        return []
    for _, reason, _ in wanted:
        _text("reason", reason)
    owed, values = OWED.format(wanted=WANTED[connection.vendor]), [json.dumps(wanted)]
    with transaction.atomic(savepoint=False), connection.cursor() as cursor:
        if len(wanted) > 1 and connection.features.has_select_for_update:  # the UPDATE takes its locks in any order
            cursor.execute(owed + LOCK_ACCOUNTS, values)
        cursor.execute(owed + GIVE_BACK, values)
        cursor.execute(owed + BOOK_REFUNDS, values)
        booked = cursor.fetchall()
        if len(booked) < len(wanted):
            raise Transaction.DoesNotExist(f"{len(wanted) - len(booked)} of {len(wanted)} are no charges")
    return booked


def _charge_at_once(account_id: int, amount: int, reference: str) -> Transaction | None:
    """`_move` and `_book` of a charge as one statement; None if the balance is too small. SQLite has no such WITH."""
    parts, values = charging(account_id, amount, reference=reference)
    with transaction.mark_for_rollback_on_error(connection.alias), connection.cursor() as cursor:
        cursor.execute(f"WITH {parts} SELECT id, balance_after FROM charged", values)  # noqa: S608 - made of our own constants
        row = cursor.fetchone()
    if row is None:
        return None
    booked = [row[0], account_id, Kind.CHARGE.value, -amount, row[1], reference, "", None, None]
    return Transaction.from_db(connection.alias, BOOKED, booked)


def _move(account_id: int, amount: int) -> int | None:
    """Change a balance by `amount` if it stays within 0 to MOST. Returns the new balance, None if nothing was done."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE tokens_account SET balance = balance + %s"
            " WHERE user_id = %s AND balance + %s BETWEEN 0 AND %s RETURNING balance",
            [amount, account_id, amount, MOST],
        )
        row = cursor.fetchone()
    return row and row[0]


def _book(
    account_id: int,
    kind: Kind,
    amount: int,
    balance: int | None,
    *,
    reference: str = "",
    reason: str = "",
    key: str | None = None,
) -> Transaction:
    """Write the ledger's line for a change that `_move` made; None of it means that a larger balance was refused.

    Bare SQL: with the ORM's INSERT a charge takes 0.51 instead of 0.22 CPU-ms, and every submit waits for one. The
    result's `created_at` is read from the database when asked for.
    """
    if balance is None:
        Account.objects.get(pk=account_id)  # else the reason is plain
        raise BalanceTooLarge(f"account {account_id} cannot hold {amount} tokens more")
    values: list[int | str | None] = [account_id, kind.value, amount, balance, reference, reason, key]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tokens_transaction"
            " (account_id, kind, amount, balance_after, reference, reason, idempotency_key)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id",
            values,
        )
        (pk,) = cursor.fetchone()
    return Transaction.from_db(connection.alias, BOOKED, [pk, *values, None])


def _chargeable(amount: int, reference: str) -> None:
    _positive(amount)
    if not _text("reference", reference, REFERENCE_LENGTH):
        raise ValueError("a charge needs a reference")


def _positive(amount: int) -> None:
    """Refuse what SQL would round, wrap or store as something else: only a true int (no bool) from 1 to MOST passes."""
    if type(amount) is not int or not 1 <= amount <= MOST:
        raise ValueError(f"an amount is a whole number from 1 to {MOST}, not {amount!r:.50}")


def _text(name: str, value: str, length: int | None = None) -> str:
    """`value`, if the database can hold it: SQLite would keep too long a text, PostgreSQL refuses NUL."""
    if not isinstance(value, str) or "\0" in value or (length and len(value) > length):
        raise ValueError(f"{name} must be text of at most {length} characters" if length else f"{name} must be text")
    return value
