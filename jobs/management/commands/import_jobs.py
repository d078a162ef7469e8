from pathlib import Path

from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, CommandError

from jobs.imports import NotAStudio, import_studio


class Command(BaseCommand):
    help = "Take over the ended jobs of a Studio's SQLite database. May be repeated; nothing is imported twice."

    def add_arguments(self, parser):
        parser.add_argument("path", type=Path, help="the Studio's jobs.db")
        parser.add_argument("--user", required=True, help="whose jobs they become")

    def handle(self, *, path, user, **options):
        owner = get_user_model().objects.filter(username=user).first()
        if owner is None:
            raise CommandError(f"There is no user {user}; make one with: manage.py api_key {user} --create")
        try:
            report = import_studio(path, owner.pk)
        except NotAStudio as wrong:
            raise CommandError(str(wrong)) from wrong
        for name, why in report.skipped:
            self.stderr.write(f"{name} was not imported: {why}")
        self.stdout.write(
            f"imported {report.imported} jobs, {report.known} were there, {len(report.skipped)} not imported"
        )
