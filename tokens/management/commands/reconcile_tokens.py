import json
import sys

from django.core.management.base import BaseCommand

from tokens import ledger


class Command(BaseCommand):
    help = "Print every account whose balance is not the sum of its ledger. Exit code 1 if there is one, else 0."

    def add_arguments(self, parser):
        parser.add_argument("--json", action="store_true", help="print one JSON list instead")

    def handle(self, *, json: bool, **options):
        drifted = ledger.drifted()
        self.stdout.write(as_json(drifted) if json else as_lines(drifted))
        if drifted:
            sys.exit(1)


def as_json(drifted: list[tuple[int, int, int]]) -> str:
    return json.dumps([{"account": pk, "balance": balance, "ledger": total} for pk, balance, total in drifted])


def as_lines(drifted: list[tuple[int, int, int]]) -> str:
    lines = [f"account {pk}: balance {balance}, ledger {total}" for pk, balance, total in drifted]
    return "\n".join([*lines, f"{len(drifted)} account{'s' * (len(drifted) != 1)} drift{'s' * (len(drifted) == 1)}"])
