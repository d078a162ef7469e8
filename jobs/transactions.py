"""A database that is busy or away: write transactions that survive it, and the one place that retries them."""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from django.contrib.auth import get_user_model
from django.db import InterfaceError, InternalError, OperationalError, connection, transaction

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)
GONE = (OperationalError, InterfaceError, InternalError)  # away, or asked for too much; read-only is an InternalError
TRIES = 4
PATIENCE = 5.0  # seconds after which a busy database is not asked again: SQLite's own busy timeout has waited as long
AGAIN = {"40001", "40P01"}  # PostgreSQL: serialization failure, deadlock: rolled back whole, safe to repeat


def write(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator: run `function` in one transaction; see `again_if_busy`."""

    @again_if_busy
    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        if connection.in_atomic_block:
            return function(*args, **kwargs)
        with transaction.atomic():
            return function(*args, **kwargs)

    return wrapper


def again_if_busy(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator: run `function`, a whole transaction or one statement, again up to three times if the database was
    busy or deadlocked, but not once PATIENCE is over.

    Inside another transaction it joins that one and retries nothing: the outermost decides.
    """

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        if connection.in_atomic_block:
            return function(*args, **kwargs)
        until = time.monotonic() + PATIENCE
        for tries_left in reversed(range(TRIES)):
            try:
                return function(*args, **kwargs)
            except OperationalError as error:
                if not (tries_left and time.monotonic() < until and _is_busy(error)):
                    raise
                time.sleep(0.02 * random.random() * 2 ** (TRIES - tries_left))
        raise AssertionError("unreachable")

    return wrapper


def hold(user_id: int) -> None:
    """Others who hold the same user wait until this transaction has ended: what is counted of a user's stays true."""
    get_user_model()._default_manager.select_for_update(no_key=True).get(pk=user_id)


def one_at_a_time(what: str) -> None:
    """Others who ask for the same wait until this transaction has ended. SQLite has no other transaction beside it."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [what])


@contextmanager
def at_once() -> Iterator[None]:
    """SQLite's write lock is not waited for inside: OperationalError if another has it."""
    if connection.vendor != "sqlite":  # others lock rows
        yield
        return
    connection.ensure_connection()
    (waits,) = connection.connection.execute("PRAGMA busy_timeout").fetchone()  # milliseconds
    connection.connection.execute("PRAGMA busy_timeout = 0")
    try:
        yield
    finally:
        connection.connection.execute(f"PRAGMA busy_timeout = {waits}")


def let_go(error: Exception) -> None:
    """Tell of a request that ended with one of GONE; the connection is made anew if it is of no use any more."""
    log.warning("Database unavailable: %s", str(error).strip()[:200])
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()


def _is_busy(error: OperationalError) -> bool:
    state = getattr(error.__cause__, "sqlstate", None)
    return state in AGAIN or (connection.vendor == "sqlite" and "locked" in str(error))
