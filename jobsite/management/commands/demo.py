from pathlib import Path

from django.conf import settings
from django.core.management import BaseCommand, CommandError

from jobsite import demo
from jobsite.demo_platform import Failed
from jobsite.demo_screen import Screen


class Command(BaseCommand):
    """The promise, shown: exit code 0 only if all that it says was true."""

    help = (
        "Start a platform of its own, render three clips and stitch them through the REST API, cancel one render, "
        "break one stitch, show every token, end it all. With files: stitch those."
    )
    requires_migrations_checks = False
    requires_system_checks = []  # they are about the platform that you run for real, which this leaves alone

    def add_arguments(self, parser):
        parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP", help="videos of yours to stitch, 2 to 200")

    def handle(self, *, clips, **options):
        try:
            demo.run(settings.HOME / "demo", clips, Screen(self.stdout))
        except Failed as why:
            raise CommandError(str(why)) from None
        except OSError as why:
            raise CommandError(f"The demo cannot go on: {why}.") from None
