"""The database's own guard over the ledger: installed by the migration, lifted only where a test empties its tables.

The SQL lies beside the migrations. On SQLite a later migration that alters the table makes it anew, without triggers:
such a migration must end with `install`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper

SQL = Path(__file__).parent / "migrations"


def install(connection: BaseDatabaseWrapper) -> None:
    """Put the triggers in place. Does no harm where they are."""
    _run(connection, "install")


def remove(connection: BaseDatabaseWrapper) -> None:
    """Take the triggers away. Does no harm where there are none."""
    _run(connection, "remove")


@contextmanager
def lifted(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Without triggers inside the block, with them after it. For tests that flush the database."""
    remove(connection)
    try:
        yield
    finally:
        install(connection)


def _run(connection: BaseDatabaseWrapper, what: str) -> None:
    script = (SQL / f"triggers_{connection.vendor}_{what}.sql").read_text()
    with connection.cursor() as cursor:
        for statement in script.split("\n\n"):
            cursor.execute(statement)
