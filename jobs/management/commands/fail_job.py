import uuid

from django.core.management import BaseCommand, CommandError

from jobs import lifecycle
from jobs.errors import Refused
from jobs.models import JobEvent


class Command(BaseCommand):
    help = "End a live job by hand: FAILED manual_intervention, refunded, at once. Its owner reads the reason."

    def add_arguments(self, parser):
        parser.add_argument("id", help="the job's id")
        parser.add_argument("--reason", required=True, help="why; at most 1000 characters")

    def handle(self, *, id, reason, **options):
        reason = reason.strip()
        if not 1 <= len(reason) <= 1000:
            raise CommandError("--reason must have 1 to 1000 characters.")
        try:
            job_id = uuid.UUID(id)
        except ValueError as error:
            raise CommandError(f"{id} is not a job's id.") from error
        try:
            job = lifecycle.fail_by_hand(job_id, reason=reason, by="command")
        except Refused as refused:
            raise CommandError(refused.detail) from refused
        tokens = JobEvent.objects.filter(job=job).values_list("tokens", flat=True).latest("id")
        self.stdout.write(f"{job.pk} is FAILED ({job.error_code}): {tokens} tokens refunded")
