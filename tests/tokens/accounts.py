"""Accounts to book on, and the rules that hold for them at any time."""

import itertools

from django.contrib.auth import get_user_model

from tokens import ledger
from tokens.models import Account, Transaction

_numbers = itertools.count(1)


def funded_account(*, tokens: int = 100) -> Account:
    """A new user's account that holds `tokens`, granted."""
    account = ledger.open_account(get_user_model().objects.create_user(f"holder-{next(_numbers)}").pk)
    if tokens:
        ledger.grant(account.pk, tokens, reason="for the test")
    return account


def balance(account: Account) -> int:
    return Account.objects.get(pk=account.pk).balance


def assert_adds_up() -> None:
    """The ledger's lines follow from each other, account by account, and end at the balance."""
    assert ledger.drifted() == []
    for account in Account.objects.all():
        running = 0
        for booking in Transaction.objects.filter(account=account).order_by("id"):
            running += booking.amount
            assert booking.balance_after == running >= 0
        assert running == account.balance
