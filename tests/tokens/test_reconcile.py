"""Drift is found, and said with an exit code that cron understands."""

import json
from io import StringIO

import pytest
from django.core.management import call_command

from tests.tokens.accounts import funded_account
from tokens import ledger
from tokens.models import Account

pytestmark = pytest.mark.django_db


def reconcile(*options: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("reconcile_tokens", *options, stdout=out)
    except SystemExit as end:
        return end.code, out.getvalue()
    return 0, out.getvalue()


@pytest.fixture
def drifting():
    """Of three accounts, one that holds 3 tokens too many, and one that holds 5 without any booking."""
    good, rich, new = funded_account(tokens=10), funded_account(tokens=20), funded_account(tokens=0)
    ledger.charge(good.pk, 4, reference="job:1:0")
    Account.objects.filter(pk=rich.pk).update(balance=23)
    Account.objects.filter(pk=new.pk).update(balance=5)
    return [(rich.pk, 23, 20), (new.pk, 5, 0)]


def test_all_is_well():
    funded_account()
    funded_account(tokens=0)
    assert reconcile() == (0, "0 accounts drift\n")
    assert reconcile("--json") == (0, "[]\n")


def test_drift_is_printed(drifting):
    assert ledger.drifted() == drifting
    (rich, *_), (new, *_) = drifting
    assert reconcile() == (
        1,
        f"account {rich}: balance 23, ledger 20\naccount {new}: balance 5, ledger 0\n2 accounts drift\n",
    )


def test_drift_is_printed_as_json(drifting):
    code, out = reconcile("--json")
    assert code == 1
    assert [tuple(found.values()) for found in json.loads(out)] == drifting
    assert set(json.loads(out)[0]) == {"account", "balance", "ledger"}
