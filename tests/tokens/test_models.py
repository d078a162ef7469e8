"""What the database refuses, whoever writes. The rows go round the ledger on purpose."""

import pytest
from django.db import DataError, IntegrityError, connection, transaction
from django.db.models import ProtectedError

from tests.tokens.accounts import funded_account
from tokens import ledger
from tokens.models import MOST, Account, Transaction

pytestmark = pytest.mark.django_db

REFUSED = (IntegrityError, DataError, OverflowError)  # DataError: PostgreSQL, for what its column cannot hold


def book(account, kind="GRANT", amount=1, **fields):
    return Transaction.objects.create(
        **{"account": account, "kind": kind, "amount": amount, "balance_after": 1} | fields
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "GRANT", "amount": 0},
        {"kind": "GRANT", "amount": -1},
        {"kind": "PURCHASE", "amount": -1},
        {"kind": "CHARGE", "amount": 1, "reference": "job:1"},
        {"kind": "CHARGE", "amount": 0, "reference": "job:1"},
        {"kind": "CHARGE", "amount": -1, "reference": ""},
        {"kind": "ADJUSTMENT", "amount": 0},
        {"kind": "REFUND", "amount": 1},
        {"kind": "GIFT", "amount": 1},
        {"amount": MOST + 1},
        {"kind": "ADJUSTMENT", "amount": -MOST - 1},
        {"amount": 2**63 - 1},
        {"amount": 2**63},
        {"balance_after": -1},
        {"balance_after": MOST + 1},
        {"balance_after": 2**63},
    ],
)
def test_a_wrong_booking_is_refused(wrong):
    account = funded_account()
    with pytest.raises(REFUSED), transaction.atomic():
        book(account, **wrong)
    assert Transaction.objects.count() == 1


@pytest.mark.parametrize("balance", [-1, MOST + 1, 2**63])
def test_a_wrong_balance_is_refused(balance):
    account = funded_account()
    with pytest.raises(REFUSED), transaction.atomic():
        Account.objects.filter(pk=account.pk).update(balance=balance)


@pytest.mark.parametrize("number", ["9223372036854775808", "1.5", "9.2e18", "'many'", "NULL"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tokens_account SET balance = {number}",
        "INSERT INTO tokens_transaction (account_id, kind, amount, balance_after, reference, reason)"
        " SELECT user_id, 'GRANT', {number}, 1, '', '' FROM tokens_account",
        "INSERT INTO tokens_transaction (account_id, kind, amount, balance_after, reference, reason)"
        " SELECT user_id, 'GRANT', 1, {number}, '', '' FROM tokens_account",
    ],
)
def test_no_number_that_is_not_whole_gets_in_by_bare_sql(statement, number):
    funded_account()
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement.format(number=number))
    except REFUSED:
        return
    stored = [value for row in Transaction.objects.values_list("amount", "balance_after") for value in row]
    stored += Account.objects.values_list("balance", flat=True)
    assert connection.vendor == "postgresql"  # which rounds 1.5 to a whole number
    assert number == "1.5"
    assert all(type(value) is int for value in stored)


def test_a_reference_is_charged_once_even_by_another_account():
    first, second = funded_account(), funded_account()
    ledger.charge(first.pk, 10, reference="job:1:0")
    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.charge(second.pk, 10, reference="job:1:0")
    assert ledger.drifted() == []


@pytest.mark.parametrize("kind", ["GRANT", "PURCHASE"])
def test_a_shops_reference_books_once_per_kind(kind):
    account, other = funded_account(), funded_account()
    book(account, kind, reference="order-1")
    with pytest.raises(IntegrityError), transaction.atomic():
        book(other, kind, reference="order-1")
    book(account, "ADJUSTMENT", reference="order-1")
    book(account, kind)
    book(account, kind)  # no reference, as often as one likes


def test_a_key_books_once_per_account():
    account, other = funded_account(), funded_account()
    book(account, idempotency_key="k")
    book(other, idempotency_key="k")
    with pytest.raises(IntegrityError), transaction.atomic():
        book(account, "PURCHASE", idempotency_key="k")


@pytest.mark.parametrize("amount", [1, 10])
def test_a_charge_is_refunded_once(amount):
    account = funded_account()
    charge = ledger.charge(account.pk, 10, reference="job:1:0")
    book(account, "REFUND", amount, reverses=charge)
    with pytest.raises(IntegrityError), transaction.atomic():
        book(account, "REFUND", 1, reverses=charge)


def test_a_refund_is_of_one_charge_of_its_account_and_no_larger():
    account, other = funded_account(), funded_account()
    charge = ledger.charge(account.pk, 10, reference="job:1:0")
    grant = Transaction.objects.filter(account=account, kind="GRANT").get()
    for wrong in (
        {"account": account, "amount": 11, "reverses": charge},
        {"account": other, "amount": 10, "reverses": charge},
        {"account": account, "amount": 10, "reverses": grant},
        {"account": account, "amount": 10, "reverses_id": charge.pk + 1000},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            book(kind="REFUND", **wrong)
    book(account, "REFUND", 10, reverses=charge)


def test_only_a_refund_reverses():
    account = funded_account()
    charge = ledger.charge(account.pk, 10, reference="job:1:0")
    with pytest.raises(IntegrityError), transaction.atomic():
        book(account, "GRANT", 10, reverses=charge)


def test_neither_user_nor_account_can_go_from_under_its_ledger():
    account = funded_account()
    with pytest.raises(ProtectedError):
        account.user.delete()
    with pytest.raises(ProtectedError):
        account.delete()


def test_the_account_bears_the_users_id():
    account = funded_account()
    assert account.pk == account.user_id == account.user.account.pk
