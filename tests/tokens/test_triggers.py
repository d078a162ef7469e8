"""The ledger is append-only, for everyone who speaks SQL."""

import pytest
from django.db import IntegrityError, connection, transaction

from tests.tokens.accounts import funded_account
from tokens import ledger, triggers
from tokens.models import Transaction

pytestmark = pytest.mark.django_db

THERE = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'tokens_transaction'",
    "postgresql": "SELECT tgname FROM pg_trigger WHERE tgrelid = 'tokens_transaction'::regclass AND NOT tgisinternal"
    " AND tgenabled = 'O'",
}
EXPECTED = {
    "sqlite": {"no_update", "no_delete", "no_replace", "refund_fits"},
    "postgresql": {"no_change", "no_truncate", "refund_fits"},
}


def only_on(vendor: str):
    """Leaves a test out of the collection of another database's run, where its statement does not exist."""
    return (lambda test: test) if connection.vendor == vendor else (lambda test: None)


def there() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(THERE[connection.vendor])
        return {name.removeprefix("tokens_transaction_") for (name,) in cursor.fetchall()}


def rows() -> list[tuple]:
    return list(Transaction.objects.order_by("id").values_list())


def refused(statement: str, *values) -> None:
    before = rows()
    with pytest.raises(IntegrityError, match="ledger"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, values or None)
    assert rows() == before


@pytest.fixture
def charge():
    return ledger.charge(funded_account().pk, 10, reference="job:1:0")


def test_the_triggers_are_there_after_migrate():
    assert there() == EXPECTED[connection.vendor]


def test_they_come_and_go_together(charge):
    with triggers.lifted(connection):
        assert there() == set()
        Transaction.objects.filter(pk=charge.pk).update(reason="rewritten")
    assert there() == EXPECTED[connection.vendor]
    triggers.install(connection)  # again, harmless
    assert there() == EXPECTED[connection.vendor]


def test_they_come_back_after_an_error():
    with pytest.raises(ZeroDivisionError), triggers.lifted(connection):
        raise ZeroDivisionError
    assert there() == EXPECTED[connection.vendor]


def test_nothing_is_changed(charge):
    refused("UPDATE tokens_transaction SET amount = -1 WHERE id = %s", charge.pk)
    refused("UPDATE tokens_transaction SET reason = 'x'")
    with pytest.raises(IntegrityError), transaction.atomic():
        charge.save()


def test_nothing_is_removed(charge):
    refused("DELETE FROM tokens_transaction WHERE id = %s", charge.pk)
    with pytest.raises(IntegrityError), transaction.atomic():
        charge.delete()


def test_an_upsert_changes_nothing(charge):
    refused(
        "INSERT INTO tokens_transaction (id, account_id, kind, amount, balance_after, reference, reason)"
        " SELECT id, account_id, kind, -1, balance_after, reference, reason FROM tokens_transaction WHERE id = %s"
        " ON CONFLICT (id) DO UPDATE SET amount = -1",
        charge.pk,
    )


@only_on("postgresql")
@pytest.mark.parametrize("statement", ["TRUNCATE tokens_transaction CASCADE", "TRUNCATE tokens_account CASCADE"])
def test_nothing_is_truncated(charge, statement):
    connection.check_constraints()  # else the deferred foreign keys of this transaction refuse it first
    refused(statement)


@only_on("sqlite")
@pytest.mark.parametrize("recursive_triggers", ["ON", "OFF"])
@pytest.mark.parametrize(
    "replacement",
    [
        {"id": "id"},
        {"reference": "reference"},
        {"kind": "'REFUND'", "amount": "1", "reverses_id": "id"},
        {"kind": "'GRANT'", "amount": "5", "idempotency_key": "'key'"},
        {"kind": "'PURCHASE'", "amount": "5", "reference": "'order'"},
    ],
    ids=str,
)
def test_nothing_is_replaced(charge, replacement, recursive_triggers):
    """FAULTS trap 11: OR REPLACE deletes the row in its way, and tells no trigger of it without the pragma."""
    ledger.refund(charge.pk, reason="for the test")
    ledger.grant(charge.account_id, 7, key="key")
    ledger.purchase(charge.account_id, 7, reference="order")
    row = {"kind": "kind", "amount": "-1", "reference": "'other'"} | replacement
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA recursive_triggers={recursive_triggers}")
        try:
            for verb in ("INSERT OR REPLACE", "REPLACE"):
                refused(
                    f"{verb} INTO tokens_transaction (account_id, balance_after, reason, {', '.join(row)})"
                    f" SELECT account_id, balance_after, 'replaced', {', '.join(row.values())}"
                    " FROM tokens_transaction WHERE id = %s",
                    charge.pk,
                )
            refused("UPDATE OR REPLACE tokens_transaction SET id = 1")
        finally:
            cursor.execute("PRAGMA recursive_triggers=ON")


@only_on("sqlite")
def test_connections_fire_delete_triggers_on_replace():
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA recursive_triggers")
        assert cursor.fetchone() == (1,)
