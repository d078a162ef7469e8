"""Take jobs or ledger lines out as CSV or JSON."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from django.core.management.base import BaseCommand, CommandError

from jobs import export
from jobs.errors import Refused
from jobs.models import Job
from jobs.search import HELP, search
from tokens.models import Transaction


class Command(BaseCommand):
    help = "Write jobs or ledger lines as CSV or JSON, newest first."

    def add_arguments(self, parser):
        parser.add_argument("what", choices=["jobs", "ledger"])
        parser.add_argument("--format", choices=list(export.FORMATS), default="csv")
        parser.add_argument("--search", default="", help=f"of jobs: {HELP}")
        parser.add_argument("--output", type=Path, help="a new file (default: the terminal)")

    def handle(self, *, what, format, search: str, output, **options):
        if search and what == "ledger":
            raise CommandError("--search is for jobs.")
        try:
            pieces = self._pieces(what, format, search)
            if output is None:
                sys.stdout.writelines(pieces)
                return
            with output.open("x", encoding="utf-8", newline="") as file:
                self._fill(file, output, pieces)
        except FileExistsError as error:
            raise CommandError(f"{output} exists already.") from error
        except BrokenPipeError:
            raise  # nobody reads on: manage.py ends
        except OSError as error:
            raise CommandError(f"{output or 'The output'} cannot be written: {error.strerror}") from error
        except Refused as refused:
            raise CommandError(refused.detail) from refused

    def _fill(self, file: TextIO, path: Path, pieces: Iterable[str]) -> None:
        """Write all of them; half an export looks like a whole one, so none is left."""
        try:
            file.writelines(pieces)
            file.flush()
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _pieces(self, what: str, form: str, text: str):
        if what == "ledger":
            return export.ledger(Transaction.objects.all(), form)
        return export.jobs(search(Job.objects.all(), text), form)
