"""Many at once on a database with real transactions: the last token is spent once."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import IntegrityError, connection, transaction

from tests.tokens.accounts import assert_adds_up, balance, funded_account
from tokens import ledger
from tokens.models import Transaction

pytestmark = pytest.mark.django_db(transaction=True)


def at_once(*calls: Callable[[], object]) -> Counter:
    """Start all calls in the same moment, each on its own connection. Counts what they end with: "ok" or the error."""
    start = Barrier(len(calls))

    def one(call):
        try:
            connection.ensure_connection()
            start.wait(timeout=10)
            call()
            return "ok"
        except Exception as error:
            return type(error).__name__
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as threads:
        return Counter(threads.map(one, calls))


def test_eight_charges_for_the_tokens_of_one():
    account = funded_account(tokens=10)
    ended = at_once(*(lambda n=n: ledger.charge(account.pk, 10, reference=f"job:{n}") for n in range(8)))
    assert ended == {"ok": 1, "InsufficientTokens": 7}
    assert (balance(account), Transaction.objects.filter(kind="CHARGE").count()) == (0, 1)
    assert_adds_up()


def test_eight_charges_of_one_reference():
    account = funded_account(tokens=100)
    ended = at_once(*[lambda: ledger.charge(account.pk, 10, reference="job:1:0")] * 8)
    assert ended == {"ok": 1, "IntegrityError": 7}
    assert balance(account) == 90
    assert_adds_up()


def test_eight_refunds_of_one_charge():
    account = funded_account(tokens=100)
    charge = ledger.charge(account.pk, 10, reference="job:1:0")
    ended = at_once(*[lambda: ledger.refund(charge.pk, reason="r")] * 8)
    assert ended == {"ok": 1, "IntegrityError": 7}
    assert balance(account) == 100
    assert_adds_up()


def test_a_shop_that_sends_its_order_eight_times():
    account = funded_account(tokens=0)
    ended = at_once(*[lambda: ledger.purchase(account.pk, 10, reference="order-1", key="k")] * 8)
    assert ended == {"ok": 8}
    assert balance(account) == 10
    assert_adds_up()


def test_one_order_for_eight_accounts():
    accounts = [funded_account(tokens=0) for _ in range(8)]
    ended = at_once(*(lambda a=account: ledger.purchase(a.pk, 10, reference="order-1") for account in accounts))
    assert ended == {"ok": 1, "ReferenceUsed": 7}
    assert sum(balance(account) for account in accounts) == 10
    assert_adds_up()


def test_an_account_is_opened_by_eight_at_once(django_user_model):
    user = django_user_model.objects.create_user("ann")
    assert at_once(*[lambda: ledger.open_account(user.pk)] * 8) == {"ok": 8}


def test_refunds_of_common_accounts_in_opposite_order_do_not_deadlock():
    accounts = [funded_account(tokens=100) for _ in range(10)]
    charges = [
        (ledger.charge(account.pk, 1, reference=f"job:{account.pk}:{n}").pk, "r")
        for n in range(8)
        for account in accounts
    ]
    batches = [charges[n * 10 : n * 10 + 10][:: (-1) ** n] for n in range(8)]
    ended = at_once(*(lambda b=batch: ledger.refund_many(b) for batch in batches))
    assert ended == {"ok": 8}
    assert {balance(account) for account in accounts} == {100}
    assert_adds_up()


def test_a_rolled_back_charge_leaves_nothing():
    account = funded_account(tokens=10)
    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.charge(account.pk, 10, reference="job:1:0")
        raise IntegrityError
    assert (balance(account), Transaction.objects.filter(kind="CHARGE").count()) == (10, 0)
