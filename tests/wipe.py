"""After a test that committed: its rows go, and those that the migrations made are as they were.

Django's own way (`flush`) empties all tables and makes content types, permissions and roles anew, which took more time
than most tests did.
"""

from django.db import connection, transaction

from tokens import triggers

_laid: dict[str, list[tuple]] = {}  # table → its rows in a database that no test has touched


def remember() -> None:
    """Keep what a new database holds. Call it before the first test."""
    with connection.cursor() as cursor:
        _laid.update((table, _rows(cursor, table)) for table in _filled(cursor))


def wipe() -> None:
    """Make all tables as they were, in one transaction."""
    with transaction.atomic(), connection.cursor() as cursor:
        changed = [table for table in _filled(cursor) | set(_laid) if _rows(cursor, table) != _laid.get(table, [])]
        if not changed:
            return
        with triggers.lifted(connection):
            for table in changed:
                cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")
            for table in changed:
                if rows := _laid.get(table):
                    marks = ", ".join(["%s"] * len(rows[0]))
                    cursor.executemany(f"INSERT INTO {connection.ops.quote_name(table)} VALUES ({marks})", rows)
            connection.check_constraints()


def _filled(cursor) -> set[str]:
    """The tables with a row."""
    tables = [name for name in connection.introspection.table_names(cursor) if name != "sqlite_sequence"]
    ask = " UNION ALL ".join(
        f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {connection.ops.quote_name(name)})" for name in tables
    )
    cursor.execute(ask)
    return {name for (name,) in cursor.fetchall()}


def _rows(cursor, table: str) -> list[tuple]:
    cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)} ORDER BY 1")
    return cursor.fetchall()
