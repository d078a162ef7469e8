"""What every test gets: its own home and environment, the users Ann, Bob and Op, a database that is whole again after
each test.

The environment is set here, before Django's settings are loaded: pytest-django loads them after the first conftest.
"""

import atexit
import os
import shutil
import tempfile

PREFIXES = ("JOB_", "JOBS_", "JOBSITE_", "SIMULATED_", "PRICE_", "RETRY_", "UPLOAD_", "MEDIA_")
NAMES = ("DEBUG", "SITE_URL", "SECRET_KEY", "CRON_SECRET", "CELERY_BROKER_URL", "STORAGE_URL", "HOST", "PORT")

for _name in list(os.environ):  # a test's outcome must not hang on who runs it
    if _name.startswith(PREFIXES) or _name.removesuffix("_FILE") in NAMES:
        del os.environ[_name]
os.environ["JOBSITE_HOME"] = tempfile.mkdtemp(prefix="jobsite-test-")
os.environ["JOBSITE_KINDS"] = "tests.kitchen"  # the kind that misbehaves on demand
os.environ["ENV_FILE"] = os.devnull  # not the developer's .env
os.environ["CELERY_BROKER_URL"] = "memory://"  # tests with a real broker start one and say so
os.environ["DJANGO_SETTINGS_MODULE"] = "jobsite.settings"
atexit.register(shutil.rmtree, os.environ["JOBSITE_HOME"], ignore_errors=True)

import django  # noqa: E402
import pytest  # noqa: E402

django.setup()  # the conftests below import models

from django.db import connection as _connection  # noqa: E402

if _connection.vendor == "sqlite":  # a file: other processes open it too
    _connection.settings_dict["TEST"]["NAME"] = os.path.join(os.environ["JOBSITE_HOME"], "test.sqlite3")
from django.test import TransactionTestCase  # noqa: E402


def _teardown_with_triggers_lifted(case: TransactionTestCase) -> None:
    """The flush after a transactional test would be refused by the append-only triggers, and takes away the rows that
    migrations made: lift the ones, lay the others again."""
    from django.db import connection

    from jobs import upkeep
    from tokens import triggers

    with triggers.lifted(connection):
        _plain_teardown(case)
    upkeep.install()


_plain_teardown = TransactionTestCase._fixture_teardown
TransactionTestCase._fixture_teardown = _teardown_with_triggers_lifted


@pytest.fixture(scope="session", autouse=True)
def _quick_passwords():
    """Password hashing is slow on purpose; tests that log in do not test that."""
    from django.test import override_settings

    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield


@pytest.fixture(autouse=True)
def _empty_storage():
    """The rows of a test are gone after it; so are its files before the next."""
    from django.conf import settings

    shutil.rmtree(settings.STORAGE_ROOT, ignore_errors=True)
    shutil.rmtree(settings.WORK_ROOT, ignore_errors=True)


@pytest.fixture
def user(db, django_user_model):
    """Makes users: `user("carol", tokens=5)`; keyword arguments are fields of the user."""
    from tokens import ledger

    def make(name: str, *, tokens: int = 1000, **fields):
        person = django_user_model.objects.create_user(name, password=f"{name}-password", **fields)
        account = ledger.open_account(person.pk)
        if tokens:
            ledger.grant(account.pk, tokens, reason="for the test")
        return person

    return make


@pytest.fixture
def ann(user):
    """Owns what the test is about, and 1,000 tokens."""
    return user("ann")


@pytest.fixture
def bob(user):
    """Another customer with 1,000 tokens; must see nothing of Ann's."""
    return user("bob")


@pytest.fixture
def op(user):
    """Operates the platform: staff with every permission, no tokens."""
    return user("op", tokens=0, is_staff=True, is_superuser=True)
