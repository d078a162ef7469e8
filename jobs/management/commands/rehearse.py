import uuid
from datetime import timedelta

from django.conf import settings
from django.core.management import BaseCommand, CommandError

from jobs import lifecycle
from jobs.errors import Refused


class Command(BaseCommand):
    help = "Make a job look as if its worker had crashed, to see the watchmen end it. Refused in production."

    def add_arguments(self, parser):
        parser.add_argument("what", choices=["stuck"])
        parser.add_argument("id", help="a job that has not ended; a worker that runs it loses it")
        parser.add_argument("--minutes", type=float, default=10.0, help="ago, its last heartbeat (default 10)")

    def handle(self, *, id, minutes, **options):
        if settings.PRODUCTION:
            raise CommandError(f"Refused in production (SITE_URL is {settings.SITE_URL}).")
        try:
            job = lifecycle.strand(uuid.UUID(id), ago=timedelta(minutes=minutes), by="rehearse")
        except ValueError as error:
            raise CommandError(f"{id} is not a job's id.") from error
        except Refused as refused:
            raise CommandError(refused.detail) from refused
        self.stdout.write(f"{job.pk} looks as if its worker had stopped {minutes:g} minutes ago")
