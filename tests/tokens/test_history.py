"""Any history of bookings, good and bad, keeps the ledger's rules."""

from django.db import IntegrityError, transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from tests.tokens.accounts import assert_adds_up, balance, funded_account
from tokens import ledger
from tokens.models import Transaction

AMOUNT = st.integers(1, 60)
STEP = st.one_of(
    st.tuples(st.just("charge"), AMOUNT),
    st.tuples(
        st.sampled_from(["grant", "purchase"]), AMOUNT, st.sampled_from(["", "a", "b"]), st.sampled_from([None, "k"])
    ),
    st.tuples(st.just("adjust"), st.integers(-60, 60)),
    st.tuples(st.just("refund"), st.integers(0, 30), st.none() | AMOUNT),
    st.tuples(st.just("refund_many"), st.lists(st.integers(0, 30), max_size=4)),
)
REFUSED = (ledger.LedgerError, IntegrityError, ValueError, Transaction.DoesNotExist)


class AnyHistory(TestCase):
    @settings(deadline=None, max_examples=40)
    @given(st.lists(st.tuples(st.booleans(), STEP), max_size=25))
    def test_adds_up_and_never_goes_below_zero(self, steps):
        accounts = funded_account(tokens=100), funded_account(tokens=0)
        charges: list[Transaction] = []
        for number, (second, (step, *values)) in enumerate(steps):
            rows, held = Transaction.objects.count(), [balance(account) for account in accounts]
            try:
                with transaction.atomic():
                    self.do(step, values, accounts[second].pk, f"job:{number}", charges)
            except REFUSED:  # refused whole
                assert (Transaction.objects.count(), [balance(account) for account in accounts]) == (rows, held)
            assert_adds_up()
        for charge in charges:
            back = Transaction.objects.filter(reverses=charge)
            assert len(back) <= 1
            assert all(refund.amount <= -charge.amount and refund.account_id == charge.account_id for refund in back)

    def do(self, step, values, account_id, reference, charges):
        match step, values:
            case "charge", [amount]:
                charges.append(ledger.charge(account_id, amount, reference=reference))
            case (("grant" | "purchase"), [amount, order, key]):
                getattr(ledger, step)(account_id, amount, reference=order, key=key)
            case "adjust", [amount]:
                ledger.adjust(account_id, amount, reason="counted")
            case "refund", [which, amount] if charges:  # often a second time
                ledger.refund(charges[which % len(charges)].pk, reason="test", amount=amount)
            case "refund_many", [which] if charges:
                ledger.refund_many([(charges[one % len(charges)].pk, "test") for one in which])
