import io

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from jobs import keys
from jobs.models import ApiKey

pytestmark = pytest.mark.django_db


def api_key(*arguments: str) -> str:
    out = io.StringIO()
    call_command("api_key", *arguments, stdout=out)
    return out.getvalue()


def test_prints_a_key_and_nothing_else(ann):
    out = api_key("ann")
    key = keys.find(out.strip())
    assert out == out.strip() + "\n"
    assert (key.owner, key.scope) == (ann, "user")
    assert ApiKey.objects.get().digest not in out  # kept as a hash, shown as itself


def test_makes_the_user_with_tokens(db):
    key = keys.find(api_key("carol", "--create", "--tokens", "25", "--scope", "finance").strip())
    assert (key.owner.username, key.owner.account.balance, key.scope) == ("carol", 25, "finance")
    assert not key.owner.has_usable_password()
    api_key("carol", "--create", "--tokens", "5")
    key.owner.account.refresh_from_db()
    assert key.owner.account.balance == 30


@pytest.mark.parametrize(
    "arguments",
    [
        ["nobody"],
        ["nobody", "--create", "--tokens", "-1"],
        ["nobody", "--create", "--tokens", "1000000000001"],
        ["nobody", "--create", "--name", ""],
        ["nobody", "--create", "--name", "n" * 81],
        ["x", "--scope", "god"],
        ["", "--create"],
        ["x" * 151, "--create"],
        ["a b/c", "--create"],
        ["forgotten-7", "--create"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_what_is_wrong_is_said_and_nothing_is_written(arguments):
    with pytest.raises(CommandError):
        api_key(*arguments)
    assert not get_user_model().objects.exists()
    assert not ApiKey.objects.exists()


def test_more_tokens_than_an_account_may_hold_are_refused(ann):
    with pytest.raises(CommandError, match="ann would have more than"):
        api_key("ann", "--tokens", "1000000000000")
    assert not ApiKey.objects.exists()
