"""S19: whatever number comes, a job is sold at a whole price in bounds, or not at all."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from jobs.intake import PRICE_MOST
from jobs.models import Job
from tests.clients import ApiClient
from tokens import ledger
from tokens.models import Account

NASTY = [
    *("NaN", "Infinity", "-Infinity", "1e308", "1e999", "-1e999", "9223372036854775807", "9223372036854775808"),
    *("-1", "-0.0", "0", "0.5", "1.0", "1e3", '"1_0"', '"5"', '"NaN"', "true", "null", "[]", "{}", "9" * 400),
]
NUMBERS = st.one_of(
    st.sampled_from(NASTY),
    st.integers().map(str),
    st.floats().map(json.dumps),
    st.text(max_size=8).map(json.dumps),
)
FIELDS = [
    ("KITCHEN", "seconds"),
    ("KITCHEN", "price"),
    ("KITCHEN", "fail_times"),
    ("RENDER", "seconds"),
    ("RENDER", "fps"),
]
FIELDS += [("RENDER", "width"), ("RENDER", "height"), ("RENDER", "seed")]


class AnyNumber(TestCase):
    def setUp(self):
        from django.contrib.auth.models import User

        self.ann = User.objects.create_user("ann")
        ledger.open_account(self.ann.pk)
        ledger.grant(self.ann.pk, 10**9, reason="for the test")
        self.client = ApiClient(self.ann)

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(FIELDS), NUMBERS)
    def test_the_price_is_whole_and_in_bounds_or_the_answer_is_400(self, where, number):
        kind, field = where
        prompt = '"prompt": "x", ' if kind == "RENDER" else ""
        before = Account.objects.get(pk=self.ann.pk).balance
        jobs = Job.objects.count()
        body = f'{{"kind": "{kind}", "params": {{{prompt}"{field}": {number}}}}}'
        answer = self.client.send("/api/jobs/", body)
        after = Account.objects.get(pk=self.ann.pk).balance
        if answer.status_code == 202:
            price = Job.objects.get(pk=answer.json()["id"]).price
            assert type(price) is int
            assert 0 <= price <= PRICE_MOST
            assert before - after == price == answer.json()["cost"]["charged"]
            Job.objects.all().update(created_at="2020-01-01T00:00:00Z")
        else:
            assert answer.status_code in (400, 429), (body, answer.content)
            assert (Job.objects.count(), after) == (jobs, before)


@pytest.mark.django_db
@pytest.mark.parametrize("number", NASTY)
def test_bookings_take_whole_amounts_alone(op, ann, number):
    answer = ApiClient(op, "finance").send(
        "/api/admin/tokens/", f'{{"user": {ann.pk}, "reference": "r", "amount": {number}}}'
    )
    whole = number in ("1.0", "1e3")  # JSON has one kind of number: these are 1 and 1000
    assert answer.status_code in ((201, 400) if whole else (400,))
    booked = Account.objects.get(pk=ann.pk).balance - 1000
    assert booked in ({0, 1, 1000} if whole else {0})
