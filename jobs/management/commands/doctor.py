import json

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.management.base import BaseCommand, CommandError

from jobs.doctor import EXAMINATIONS
from jobsite import __version__
from jobsite.versions import versions

LEVELS = {name: getattr(checks, name) for name in ("INFO", "WARNING", "ERROR")}
DOCS = "docs/operations.md#doctor"


class Command(BaseCommand):
    """Looks at what would hurt later. Exit code: 0 well, 1 a finding of --fail-level or worse."""

    help = "What would hurt later, each with what to do. Asks the running platform, too: start it first."
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser):
        parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
        parser.add_argument("--fail-level", choices=LEVELS, default="ERROR", help="exit 1 from here on (ERROR)")

    def handle(self, *, fail_level, **options):
        found = {one.title: one() for one in EXAMINATIONS}
        theirs = checks.run_checks(include_deployment_checks=settings.PRODUCTION)  # they ask for TLS
        found["Django's own checks"] = [one for one in theirs if not one.is_silenced() and not _ours(one)]
        messages = [message for of_one in found.values() for message in of_one]
        bad = [message for message in messages if message.level >= LEVELS[fail_level]]
        if options["json"]:
            findings = [_as_dict(message) for message in messages]
            told = {"ok": not bad, "version": __version__, "versions": versions(), "findings": findings}
            self.stdout.write(json.dumps(told, indent=1))
        else:
            self._tell(found)
        if bad:
            raise CommandError(f"{len(bad)} findings of level {fail_level} or worse ({DOCS}).")

    def _tell(self, found: dict[str, list[CheckMessage]]) -> None:
        self.stdout.write(", ".join(f"{name} {version}" for name, version in versions().items()))
        for title, messages in found.items():
            if not messages:
                self.stdout.write(f"{self.style.SUCCESS('ok')}       {title}")
            for message in messages:
                level = _level(message)
                paint = {"error": self.style.ERROR, "warning": self.style.WARNING}.get(level, self.style.NOTICE)
                self.stdout.write(f"{paint(level)}{' ' * (8 - len(level))} {title}: {message.msg} [{message.id}]")
                if message.hint:
                    self.stdout.write(f"         → {message.hint}")


def _ours(message: CheckMessage) -> bool:
    return str(message.id).startswith("jobsite.")


def _level(message: CheckMessage) -> str:
    return "error" if message.level >= checks.ERROR else "warning" if message.level >= checks.WARNING else "note"


def _as_dict(message: CheckMessage) -> dict[str, str]:
    hint = str(message.hint or "")
    docs = DOCS if _ours(message) else ""
    return {"id": str(message.id), "level": _level(message), "message": str(message.msg), "hint": hint, "docs": docs}
