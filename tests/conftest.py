"""What every test gets: the users Ann, Bob and Op, an empty storage, a database that is whole again after each test."""

import os
import shutil

import pytest
from django.db import connection
from django.test import TransactionTestCase

from tests import wipe

if connection.vendor == "sqlite":  # a file: other processes open it too
    connection.settings_dict["TEST"]["NAME"] = os.path.join(os.environ["JOBSITE_HOME"], "test.sqlite3")


def pytest_collection_modifyitems(config, items):
    """What asks nothing of the database under test is run once, with SQLite."""
    if connection.vendor == "postgresql":
        apart = [item for item in items if item.get_closest_marker("once") or not _asks_the_database(item)]
        config.hook.pytest_deselected(items=apart)
        items[:] = [item for item in items if item not in set(apart)]


def _asks_the_database(item) -> bool:
    fixtures = {"db", "transactional_db", "_django_db_helper"} & set(getattr(item, "fixturenames", ()))
    case = getattr(item, "cls", None)
    marked = item.get_closest_marker("django_db") is not None
    return bool(fixtures) or marked or (case is not None and issubclass(case, TransactionTestCase))


TransactionTestCase._fixture_teardown = lambda case: wipe.wipe()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    """The database, with what the migrations laid kept in mind."""
    with django_db_blocker.unblock():
        wipe.remember()


@pytest.fixture(scope="session", autouse=True)
def _quick():
    """Password hashing is slow on purpose, and WhiteNoise reads all static files for each new client: tests of other
    things need neither."""
    from django.test import override_settings

    hashers = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    with override_settings(PASSWORD_HASHERS=hashers, WHITENOISE_AUTOREFRESH=True):
        yield


@pytest.fixture(autouse=True)
def _health_forgets():
    """Answers of broker, storage and ledger are believed for up to a minute: none of one test's is the next one's."""
    from jobs import health

    for remembered in (health._broker, health._storage, health._ledger):
        remembered.forget()


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
