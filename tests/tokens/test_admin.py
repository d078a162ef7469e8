"""The operator reads accounts and ledger, and grants with a reason; nobody edits."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.urls import reverse, reverse_lazy

from tests.tokens.accounts import balance, funded_account
from tokens import ledger
from tokens.models import Account, Transaction

pytestmark = pytest.mark.django_db

ACCOUNTS = reverse_lazy("admin:tokens_account_changelist")
LEDGER = reverse_lazy("admin:tokens_transaction_changelist")
GRANT_TO_USER = reverse_lazy("admin:tokens_account_grant_to_user")


@pytest.fixture
def account():
    account = funded_account(tokens=100)
    ledger.charge(account.pk, 30, reference="job:1:0")
    return account


@pytest.fixture
def staff(client, django_user_model):
    """Logs a member of staff in who has the named permissions."""

    def log_in(*names: str, **fields):
        user = django_user_model.objects.create_user("op", **{"is_staff": True} | fields)
        user.user_permissions.set(Permission.objects.filter(codename__in=names, content_type__app_label="tokens"))
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def op(staff):
    return staff("view_account", "view_transaction", "grant_tokens")


def page(account: Account) -> str:
    return reverse("admin:tokens_account_change", args=[account.pk])


def grant_page(account: Account) -> str:
    return reverse("admin:tokens_account_grant", args=[account.pk])


def wanted(client, address: str, **values) -> dict:
    """What the form at `address` sends once it is filled in with `values`."""
    form = client.get(address).context["form"]
    return {name: form[name].value() for name in form.fields if form[name].value() is not None} | values


def test_accounts_and_ledger_are_shown(op, account):
    for address in (ACCOUNTS, page(account)):
        answer = op.get(address)
        assert answer.status_code == 200
        assert "Grant tokens" in answer.text
        assert f"{LEDGER}?account__exact={account.pk}" in answer.text
    other = funded_account()
    charge = Transaction.objects.get(kind="CHARGE")
    assert "job:1:0" in op.get(reverse("admin:tokens_transaction_change", args=[charge.pk])).text
    assert "job:1:0" in op.get(f"{LEDGER}?account__exact={account.pk}").text
    assert "job:1:0" not in op.get(f"{LEDGER}?account__exact={other.pk}").text
    assert "job:1:0" in op.get(f"{LEDGER}?q={account.user.username}").text
    assert account.user.username in op.get(f"{ACCOUNTS}?q={account.user.username}").text


def test_lists_take_a_constant_number_of_queries(op, account, django_assert_max_num_queries):
    for _ in range(20):
        funded_account()
    for address in (ACCOUNTS, LEDGER):
        with django_assert_max_num_queries(8):
            op.get(address)


def test_nothing_is_edited_even_by_a_superuser(staff, account):
    client = staff(is_superuser=True)
    before = list(Transaction.objects.values_list()), list(Account.objects.values_list())
    for model, row in (("account", account), ("transaction", Transaction.objects.first())):
        for verb, arguments in (("add", []), ("change", [row.pk]), ("delete", [row.pk])):
            address = reverse(f"admin:tokens_{model}_{verb}", args=arguments)
            assert client.post(address, {"balance": 999, "amount": 999, "post": "yes"}).status_code == 403
        selected = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
        client.post(reverse(f"admin:tokens_{model}_changelist"), selected)
    assert before == (list(Transaction.objects.values_list()), list(Account.objects.values_list()))


def test_a_grant_is_booked_and_logged(op, account):
    answer = op.post(grant_page(account), wanted(op, grant_page(account), amount=50, reason="sorry for the delay"))
    assert answer.headers["HX-Redirect"] == ACCOUNTS
    booked = Transaction.objects.latest("id")
    assert (booked.account, booked.kind, booked.amount, booked.balance_after) == (account, "GRANT", 50, 120)
    assert booked.reason == "sorry for the delay"
    entry = LogEntry.objects.get()
    assert (entry.user.username, entry.object_id) == ("op", str(account.pk))
    assert "50" in entry.change_message
    assert "sorry for the delay" in entry.change_message
    assert "Granted 50 tokens" in op.get(ACCOUNTS).text


def test_a_form_sent_twice_grants_once(op, account):
    sent = wanted(op, grant_page(account), amount=50, reason="once")
    op.post(grant_page(account), sent)
    op.post(grant_page(account), sent)
    assert balance(account) == 120


def test_a_grant_by_name_opens_an_account(op, django_user_model):
    new = django_user_model.objects.create_user("newcomer")
    op.post(GRANT_TO_USER, wanted(op, GRANT_TO_USER, username="newcomer", amount=5, reason="welcome"))
    assert new.account.balance == 5


@pytest.mark.parametrize("no_account", ["987654", "abc"])
def test_a_grant_to_no_account_is_not_found(op, no_account):
    address = reverse("admin:tokens_account_grant", args=[no_account])
    assert op.post(address, wanted(op, address, amount=5, reason="r")).status_code == 404


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"amount": 0}, "greater than or equal to 1"),
        ({"amount": 2**63}, "less than or equal to"),
        ({"amount": "1.5"}, "whole number"),
        ({"reason": " "}, "required"),
        ({"username": "nobody"}, "no such user"),
    ],
)
def test_a_wrong_form_is_answered_and_books_nothing(op, account, wrong, complaint):
    right = {"username": account.user.username, "amount": 1, "reason": "r"}
    assert complaint in op.post(GRANT_TO_USER, wanted(op, GRANT_TO_USER, **right | wrong)).text
    assert balance(account) == 70


def test_a_refused_grant_is_said_and_leaves_no_trace(op, account):
    op.post(grant_page(account), wanted(op, grant_page(account), amount=10**12, reason="too much"))
    assert "Nothing was granted" in op.get(ACCOUNTS).text
    assert (balance(account), LogEntry.objects.count()) == (70, 0)


def test_without_the_permission_there_is_no_grant(staff, account):
    client = staff("view_account", "view_transaction", "change_account", "add_transaction")
    assert "Grant tokens" not in client.get(ACCOUNTS).text + client.get(page(account)).text
    for address in (grant_page(account), GRANT_TO_USER):
        assert client.get(address).status_code == 403
        answer = client.post(address, {"amount": 1, "reason": "r", "key": "k", "_form_submitted": True})
        assert answer.status_code == 403
    assert balance(account) == 70


def test_a_customer_sees_none_of_it(client, account):
    client.force_login(account.user)
    for address in (ACCOUNTS, LEDGER, page(account), grant_page(account), GRANT_TO_USER):
        assert client.get(address).status_code == 302  # to the login of staff
    assert client.post(grant_page(account), {"amount": 1, "reason": "r", "key": "k"}).status_code == 302
    assert balance(account) == 70
