"""Migrating a platform that has grown, on PostgreSQL: SQLite ends no statement."""

from importlib import import_module

import pytest
from django.core.management import call_command
from django.db import connection, migrations
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder


@pytest.mark.django_db(transaction=True)
def test_a_migration_may_take_longer_than_other_statements(monkeypatch):
    """An index on many rows, say: within PostgreSQL's limit for a statement it could never be made."""
    ((app, last),) = MigrationLoader(connection).graph.leaf_nodes("jobs")
    slow = migrations.RunSQL("SELECT pg_sleep(0.3)", "SELECT 1")
    monkeypatch.setattr(import_module(f"jobs.migrations.{last}").Migration, "operations", [slow])
    MigrationRecorder(connection).record_unapplied(app, last)
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 100")
    try:
        call_command("migrate", verbosity=0)
    finally:
        connection.close()
        MigrationRecorder(connection).record_applied(app, last)
