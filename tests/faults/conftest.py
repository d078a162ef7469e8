"""The platform of real processes, and its invariants after each test."""

import pytest
from django.db import connection

# What is about one database is not collected on the other, so that neither run has to skip.
collect_ignore = ["test_database_sqlite.py" if connection.vendor == "postgresql" else "test_database_pg.py"]


def pytest_collection_modifyitems(items):
    for item in items:
        if "/faults/" in str(item.path):
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.django_db(transaction=True))


@pytest.fixture
def platform(transactional_db):
    """Nothing runs yet: start what the test needs (`platform.up()`: all of it). Invariants are checked at its end."""
    from tests.faults import rig

    made = rig.Platform()
    try:
        yield made
        rig.at_rest()
    finally:
        made.close()
