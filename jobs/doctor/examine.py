"""The list of examinations, and how one becomes a Django check."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.core import checks
from django.core.checks import CheckMessage
from django.db import Error, connection


@dataclass(eq=False)  # Django keeps checks in a set, and writes their tags on them
class Examination:
    """One thing that is looked at. `live`: it asks the running platform, so it has nothing to say before a start."""

    title: str
    live: bool
    look: Callable[[], Iterable[CheckMessage]]

    def __call__(self, app_configs=None, **options) -> list[CheckMessage]:
        """The findings, none if all is well. A database that does not answer is one of them."""
        try:
            return list(self.look())
        except Error as error:
            connection.close_if_unusable_or_obsolete()
            words = f"{self.title}: the database does not answer ({type(error).__name__})."
            return [warning("W100", words, "Start it, or correct DATABASE_URL; then run manage.py migrate.")]


EXAMINATIONS: list[Examination] = []


def examination(title: str, *, live: bool = False) -> Callable:
    """Decorator: a generator of findings becomes an examination."""

    def keep(look: Callable[[], Iterable[CheckMessage]]) -> Callable[[], Iterable[CheckMessage]]:
        one = Examination(title, live, look)
        EXAMINATIONS.append(one)
        return look

    return keep


def register() -> None:
    """Make them checks of `manage.py check --deploy`."""
    for one in EXAMINATIONS:
        checks.register(one, "jobsite", deploy=True)


def error(number: str, words: str, hint: str) -> CheckMessage:
    """Something is lost, open or refused as it stands."""
    return checks.Error(words, hint=hint, id=f"jobsite.{number}")


def warning(number: str, words: str, hint: str) -> CheckMessage:
    """It works until something else happens."""
    return checks.Warning(words, hint=hint, id=f"jobsite.{number}")


def note(number: str, words: str, hint: str) -> CheckMessage:
    """Nothing is wrong; good to know."""
    return checks.Info(words, hint=hint, id=f"jobsite.{number}")
