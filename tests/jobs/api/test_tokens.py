"""Balance, history, and how a shop sells tokens."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.admin.models import LogEntry
from django.db import OperationalError, connection

from tests.clients import ApiClient, codes
from tokens.models import Account, Transaction

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop(op):
    return ApiClient(op, "finance")


def test_balance_and_history(as_ann, submit):
    job = submit()
    wallet = as_ann.get("/api/tokens/").json()
    assert wallet["balance"] == 990
    assert [(line["kind"], line["amount"], line["balance_after"]) for line in wallet["results"]] == [
        ("CHARGE", -10, 990),
        ("GRANT", 1000, 1000),
    ]
    assert wallet["results"][0]["reference"] == f"job:{job.pk}:1"
    page = as_ann.get("/api/tokens/?limit=1").json()
    assert as_ann.get(page["next"]).json()["results"] == wallet["results"][1:]
    assert codes(as_ann.get("/api/tokens/?cursor=99999999999999999999")) == {"cursor": "invalid"}


def test_nobody_sees_anothers_ledger(as_bob, submit):
    submit()
    assert [line["kind"] for line in as_bob.get("/api/tokens/").json()["results"]] == ["GRANT"]


def test_a_user_without_an_account_has_nothing(django_user_model):
    carol = ApiClient(django_user_model.objects.create_user("carol"))
    assert carol.get("/api/tokens/").json() == {"balance": 0, "next": None, "results": []}
    assert carol.send("/api/jobs/", {"kind": "KITCHEN"}).status_code == 402


@pytest.mark.parametrize("who", ["id", "name"])
def test_a_purchase(ann, shop, who):
    user = ann.pk if who == "id" else ann.username
    answer = shop.send("/api/admin/tokens/", {"user": user, "amount": 50, "reference": "order-1", "reason": "Pack S"})
    assert (answer.status_code, answer.json()["balance"]) == (201, 1050)
    assert answer.json()["transaction"] | {"id": 0, "created_at": ""} == {
        "id": 0,
        "kind": "PURCHASE",
        "amount": 50,
        "balance_after": 1050,
        "reference": "order-1",
        "reason": "Pack S",
        "created_at": "",
    }


def test_a_grant_opens_the_account_it_needs(django_user_model, shop):
    carol = django_user_model.objects.create_user("carol")
    answer = shop.send("/api/admin/tokens/", {"user": carol.pk, "amount": 5, "reason": "Welcome."})
    assert answer.json()["transaction"]["kind"] == "GRANT"
    assert Account.objects.get(pk=carol.pk).balance == 5


def test_a_key_books_once(ann, shop):
    order = {"user": ann.pk, "amount": 50, "reference": "order-1"}
    first, again = (shop.send("/api/admin/tokens/", order, Idempotency_Key="k") for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json()["transaction"] == first.json()["transaction"]
    other = shop.send("/api/admin/tokens/", order | {"amount": 51}, Idempotency_Key="k")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert Account.objects.get(pk=ann.pk).balance == 1050


@pytest.mark.django_db(transaction=True)
def test_a_booking_and_the_log_of_who_booked_are_written_together(ann, shop, monkeypatch):
    def away(*arguments, **options):
        raise OperationalError("the database has gone")

    body = {"user": "ann", "amount": 50, "reason": "sorry"}
    with monkeypatch.context() as patched:
        patched.setattr(LogEntry.objects, "log_actions", away)
        assert shop.send("/api/admin/tokens/", body, Idempotency_Key="k").status_code == 503
    assert Account.objects.get(pk=ann.pk).balance == 1000
    assert shop.send("/api/admin/tokens/", body, Idempotency_Key="k").status_code == 201
    assert "GRANT 50" in LogEntry.objects.get().change_message


@pytest.mark.django_db(transaction=True)
def test_a_key_that_comes_four_times_at_once_is_one_booking_and_one_line_in_the_log(ann, shop):
    def send(_):
        try:
            body = {"user": "ann", "amount": 50, "reason": "sorry"}
            return shop.send("/api/admin/tokens/", body, Idempotency_Key="k").status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(send, range(4))) == [200, 200, 200, 201]
    assert Account.objects.get(pk=ann.pk).balance == 1050
    assert "GRANT 50" in LogEntry.objects.get().change_message


def test_an_order_books_once_whatever_key_comes_with_it(ann, bob, shop):
    order = {"user": ann.pk, "amount": 50, "reference": "order-1"}
    shop.send("/api/admin/tokens/", order, Idempotency_Key="k1")
    for change in ({}, {"user": bob.pk}):
        again = shop.send("/api/admin/tokens/", order | change, Idempotency_Key="k2")
        assert (again.status_code, again.json()["code"]) == (409, "reference_used")


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"user": 10**9}, "user", "unknown"),
        ({"user": "nobody"}, "user", "unknown"),
        ({"user": True}, "user", "invalid"),
        ({"user": 2**63 - 1}, "user", "unknown"),
        ({"amount": 0}, "amount", "min_value"),
        ({"amount": -5}, "amount", "min_value"),
        ({"amount": 1.5}, "amount", "invalid"),
        ({"amount": "1_0"}, "amount", "invalid"),
        ({"amount": 10**10}, "amount", "max_value"),
        ({"kind": "REFUND"}, "kind", "invalid_choice"),
        ({"reference": "x" * 201}, "reference", "max_length"),
        ({"kind": "PURCHASE", "reference": ""}, "reference", "required"),
        ({"kind": "GRANT"}, "reason", "required"),
        ({"balance": 5}, "balance", "unknown_field"),
    ],
)
def test_bad_bookings_name_the_field_and_write_nothing(ann, shop, change, field, code):
    lines = Transaction.objects.count()
    answer = shop.send("/api/admin/tokens/", {"user": ann.pk, "amount": 5, "reference": "order-1"} | change)
    assert (answer.status_code, codes(answer)) == (400, {field: code})
    assert Transaction.objects.count() == lines


def test_an_account_that_would_be_too_full_is_refused(ann, shop, monkeypatch):
    monkeypatch.setattr("tokens.ledger.MOST", 1020)
    answer = shop.send("/api/admin/tokens/", {"user": ann.pk, "amount": 50, "reference": "order-1"})
    assert codes(answer) == {"amount": "out_of_range"}


@pytest.mark.parametrize(
    ("scope", "status"), [("user", 403), ("viewer", 403), ("operator", 403), ("finance", 201), ("admin", 201)]
)
def test_who_may_book(ann, bob, scope, status):
    order = {"user": ann.pk, "amount": 5, "reference": "order-1"}
    assert ApiClient(bob, scope).send("/api/admin/tokens/", order).status_code == status
