"""Booking: what each function writes, returns and refuses, and in how many statements."""

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from tests.tokens.accounts import assert_adds_up, balance, funded_account
from tokens import ledger
from tokens.models import KEY_LENGTH, MOST, REFERENCE_LENGTH, Account, Transaction

pytestmark = pytest.mark.django_db

GIVE = [ledger.grant, ledger.purchase]
NOBODY = 987_654


@pytest.fixture
def account():
    return funded_account(tokens=100)


@pytest.fixture(autouse=True)
def _adds_up():
    yield
    assert_adds_up()


def statements(call) -> int:
    with (
        CaptureQueriesContext(
            connection,
        ) as seen,
        transaction.atomic(),
    ):
        before = len(seen)
        call()
        return len(seen) - before


def written(booking: Transaction) -> tuple:
    return Transaction.objects.values_list("kind", "amount", "balance_after", "reference", "reason").get(pk=booking.pk)


def test_an_account_is_opened_once(django_user_model):
    user = django_user_model.objects.create_user("ann")
    assert ledger.open_account(user.pk) == ledger.open_account(user.pk) == Account.objects.get(user=user, balance=0)


@pytest.mark.parametrize("give", GIVE)
def test_given_tokens_are_booked(account, give):
    booked = give(account.pk, 50, reference="order-1", reason="for Christmas")
    assert written(booked) == (give.__name__.upper(), 50, 150, "order-1", "for Christmas")
    assert booked.created_at is not None
    assert balance(account) == 150


@pytest.mark.parametrize("give", GIVE)
def test_the_same_key_and_content_book_once(account, give):
    first = give(account.pk, 50, reference="order-1", reason="paid", key="k")
    ledger.charge(account.pk, 150, reference="job:1:0")
    again = give(account.pk, 50, reference="order-1", reason="paid", key="k")
    assert (again.pk, again.balance_after, balance(account)) == (first.pk, 150, 0)


@pytest.mark.parametrize("give", GIVE)
@pytest.mark.parametrize("change", [{"amount": 51}, {"reference": "order-2"}, {"reason": "other"}])
def test_the_same_key_with_other_content_is_refused(account, give, change):
    content = {"amount": 50, "reference": "order-1", "reason": "paid", "key": "k"}
    give(account.pk, **content)
    with pytest.raises(ledger.KeyReused):
        give(account.pk, **content | change)
    assert balance(account) == 150


def test_a_key_belongs_to_one_kind_and_one_account(account):
    ledger.grant(account.pk, 50, key="k")
    with pytest.raises(ledger.KeyReused):
        ledger.purchase(account.pk, 50, key="k")
    other = funded_account(tokens=0)
    ledger.purchase(other.pk, 50, key="k")
    assert (balance(account), balance(other)) == (150, 50)


@pytest.mark.parametrize("give", GIVE)
@pytest.mark.parametrize("key", [None, "another"])
def test_a_reference_is_booked_once_whoever_asks(account, give, key):
    give(account.pk, 50, reference="order-1", key="k")
    for holder in (account, funded_account(tokens=0)):
        with pytest.raises(ledger.ReferenceUsed):
            give(holder.pk, 50, reference="order-1", key=key)
    assert balance(account) == 150


def test_without_a_reference_one_books_as_often_as_one_likes(account):
    ledger.grant(account.pk, 5)
    ledger.grant(account.pk, 5)
    assert balance(account) == 110


def test_the_callers_transaction_goes_on_after_a_refusal(account):
    with transaction.atomic():
        ledger.grant(account.pk, 1, reference="order-1")
        with pytest.raises(ledger.ReferenceUsed):
            ledger.grant(account.pk, 1, reference="order-1")
        with pytest.raises(ledger.InsufficientTokens):
            ledger.charge(account.pk, 1000, reference="job:1:0")
        with pytest.raises(ledger.InsufficientTokens):
            ledger.adjust(account.pk, -1000, reason="wrong")
        ledger.charge(account.pk, 100, reference="job:1:0")
    assert balance(account) == 1


@pytest.mark.parametrize("give", GIVE)
def test_no_more_than_an_account_can_hold(account, give):
    with pytest.raises(ledger.BalanceTooLarge):
        give(account.pk, MOST - 99)
    give(account.pk, MOST - 100, key="k")
    assert give(account.pk, MOST - 100, key="k").balance_after == MOST  # the second asking, though it would not fit


@pytest.mark.parametrize("give", GIVE)
def test_nothing_is_given_to_nobody(give):
    with pytest.raises(Account.DoesNotExist):
        give(NOBODY, 1)


@pytest.mark.parametrize(("amount", "becomes"), [(5, 105), (-100, 0)])
def test_an_adjustment_goes_both_ways(account, amount, becomes):
    assert written(ledger.adjust(account.pk, amount, reason="counted")) == (
        "ADJUSTMENT",
        amount,
        becomes,
        "",
        "counted",
    )
    assert balance(account) == becomes


def test_an_adjustment_keeps_within_bounds(account):
    with pytest.raises(ledger.InsufficientTokens):
        ledger.adjust(account.pk, -101, reason="counted")
    with pytest.raises(ledger.BalanceTooLarge):
        ledger.adjust(account.pk, MOST, reason="counted")
    with pytest.raises(Account.DoesNotExist):
        ledger.adjust(NOBODY, 1, reason="counted")
    with pytest.raises(ValueError, match="reason"):
        ledger.adjust(account.pk, 1, reason=" ")
    assert balance(account) == 100


def test_a_charge_takes_tokens(account):
    booked = ledger.charge(account.pk, 100, reference="job:1:0")
    assert written(booked) == ("CHARGE", -100, 0, "job:1:0", "")
    assert balance(account) == 0


def test_a_charge_beyond_the_balance_writes_nothing(account):
    with pytest.raises(ledger.InsufficientTokens) as refused:
        ledger.charge(account.pk, 101, reference="job:1:0")
    assert (refused.value.account_id, refused.value.amount) == (account.pk, 101)
    with pytest.raises(ledger.InsufficientTokens):
        ledger.charge(NOBODY, 1, reference="job:1:0")
    assert Transaction.objects.filter(kind="CHARGE").count() == 0
    assert balance(account) == 100


def test_a_second_charge_of_a_reference_takes_nothing(account):
    ledger.charge(account.pk, 10, reference="job:1:0")
    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.charge(account.pk, 10, reference="job:1:0")
    assert balance(account) == 90


def test_a_swallowed_double_charge_cannot_be_committed(account):
    """Without a savepoint of its own, a charge whose second write fails must not leave its first one behind."""
    ledger.charge(account.pk, 10, reference="job:1:0")
    with pytest.raises(transaction.TransactionManagementError), transaction.atomic():
        with pytest.raises(IntegrityError):
            ledger.charge(account.pk, 10, reference="job:1:0")
        Account.objects.get(pk=account.pk)
    assert balance(account) == 90


@pytest.mark.parametrize(("amount", "back"), [(None, 40), (1, 1), (40, 40)])
def test_a_refund_gives_back(account, amount, back):
    charge = ledger.charge(account.pk, 40, reference="job:1:0")
    booked = ledger.refund(charge.pk, reason="worker_lost", amount=amount)
    assert written(booked) == ("REFUND", back, 60 + back, "job:1:0", "worker_lost")
    assert booked.reverses_id == charge.pk
    assert balance(account) == 60 + back


def test_a_refund_is_once_and_no_larger(account):
    charge = ledger.charge(account.pk, 40, reference="job:1:0")
    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.refund(charge.pk, reason="too much", amount=41)
    refund = ledger.refund(charge.pk, reason="failed", amount=1)
    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.refund(charge.pk, reason="again", amount=1)
    for no_charge in (refund.pk, refund.pk + 1000):
        with pytest.raises(Transaction.DoesNotExist), transaction.atomic():
            ledger.refund(no_charge, reason="no charge")
    assert balance(account) == 61


def test_many_refunds_at_once():
    holders = [funded_account(tokens=1000) for _ in range(7)]
    charges = [ledger.charge(holders[n % 7].pk, 1 + n % 5, reference=f"job:{n}") for n in range(50)]
    back = ledger.refund_many([(charge.pk, f"reason {charge.pk}") for charge in reversed(charges)])
    assert back == {charge.pk: -charge.amount for charge in charges}
    assert {balance(holder) for holder in holders} == {1000}
    for charge in charges:
        refund = charge.refund
        assert (refund.amount, refund.reference, refund.reason) == (
            -charge.amount,
            charge.reference,
            f"reason {charge.pk}",
        )


def test_one_bad_refund_of_many_leaves_all_undone(account):
    charges = [ledger.charge(account.pk, 10, reference=f"job:{n}") for n in range(3)]
    ledger.refund(charges[1].pk, reason="before")
    wanted = [(charge.pk, "batch") for charge in charges]
    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.refund_many(wanted)
    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.refund_many([wanted[0], wanted[0]])
    with pytest.raises(Transaction.DoesNotExist), transaction.atomic():
        ledger.refund_many([wanted[0], (charges[2].pk + 1000, "batch")])
    assert balance(account) == 80
    assert ledger.refund_many([]) == {}


def test_few_statements(account):
    charges = {"postgresql": 1, "sqlite": 2}[connection.vendor]
    assert statements(lambda: ledger.charge(account.pk, 1, reference="job:0")) == charges
    assert statements(lambda: ledger.open_account(account.pk)) == 1
    assert statements(lambda: ledger.grant(account.pk, 1)) == 4  # with its savepoint
    charge = ledger.charge(account.pk, 1, reference="job:1")
    assert statements(lambda: ledger.refund(charge.pk, reason="r")) == 2
    holders = [funded_account(tokens=1000) for _ in range(20)]
    charges = [(ledger.charge(holders[n % 20].pk, 1, reference=f"many:{n}").pk, "r") for n in range(500)]
    refunds = {"postgresql": 3, "sqlite": 2}[connection.vendor]  # SQLite has no rows to lock
    assert statements(lambda: ledger.refund_many(charges)) == refunds
    with CaptureQueriesContext(connection) as seen:
        ledger.drifted()
    assert len(seen) == 1


@pytest.mark.parametrize("wrong", [0, -1, True, 1.0, 0.5, float("nan"), "1", None, MOST + 1, 2**63, 10**400])
def test_a_wrong_amount_never_reaches_the_database(account, wrong):
    charge = ledger.charge(account.pk, 10, reference="job:1:0")
    calls = [
        lambda: ledger.grant(account.pk, wrong),
        lambda: ledger.purchase(account.pk, wrong),
        lambda: ledger.charge(account.pk, wrong, reference="job:2:0"),
    ]
    if wrong is not None:
        calls.append(lambda: ledger.refund(charge.pk, reason="r", amount=wrong))
    if wrong != -1:
        calls.append(lambda: ledger.adjust(account.pk, wrong, reason="r"))
    for call in calls:
        with CaptureQueriesContext(connection) as seen, pytest.raises(ValueError):
            call()
        assert len(seen) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"reference": "x" * (REFERENCE_LENGTH + 1)},
        {"reference": "a\0b"},
        {"reference": None},
        {"reason": "a\0b"},
        {"key": "k" * (KEY_LENGTH + 1)},
        {"key": ""},
    ],
)
def test_a_text_that_a_database_would_cut_or_refuse_is_refused(account, wrong):
    with pytest.raises(ValueError):
        ledger.grant(account.pk, 1, **wrong)


@pytest.mark.parametrize("reference", ["", "x" * (REFERENCE_LENGTH + 1)])
def test_a_charge_needs_a_fitting_reference(account, reference):
    with pytest.raises(ValueError, match="reference"):
        ledger.charge(account.pk, 1, reference=reference)
