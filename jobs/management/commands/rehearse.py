"""What the operator wants to have seen before it happens: a crash, and the four bad days of an analysis."""

import errno
import json
import os
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.files.storage import default_storage
from django.core.management import BaseCommand, CommandError
from django.db import connection
from rest_framework.utils.encoders import JSONEncoder

from jobs import kinds, lifecycle, runner, slots, uploads
from jobs.errors import Refused
from jobs.heartbeat import heart
from jobs.kinds.base import Limits
from jobs.models import Job
from tokens import ledger

SAMPLE = settings.BASE_DIR / "dev-samples" / "sales_demo.csv"
QUEUE = f"rehearsal-{os.getpid()}"  # served by nobody else: the job is run by this process, under these settings
NOWHERE = "http://127.0.0.1:9/v1"  # the discard port: nobody answers
REHEARSALS = {  # name → (settings for it, seconds that the job may take, what its status must be)
    "blob-retry": ({"RETRY_INITIAL_DELAY": 0.2}, 60, "completed"),
    "llm-failure": ({"LLM_KEY": "invalid_key", "LLM_BASE_URL": NOWHERE, "RETRY_INITIAL_DELAY": 0.2}, 60, "completed"),
    "cancel": ({"SIMULATED_SLOW": 20.0}, 60, "cancelled"),
    "timeout": ({"SIMULATED_SLOW": 20.0}, 3, "failed"),
}


class Command(BaseCommand):
    help = "Rehearse a crash (stuck ID), or an analysis of the sample on a bad day. Refused in production."

    def add_arguments(self, parser):
        parser.add_argument("what", choices=["stuck", *REHEARSALS])
        parser.add_argument("id", nargs="?", help="stuck: a job that has not ended; a worker that runs it loses it")
        parser.add_argument("--minutes", type=float, default=10.0, help="stuck: ago, its last heartbeat (default 10)")

    def handle(self, *, what, id, minutes, **options):
        if settings.PRODUCTION:
            raise CommandError(f"Refused in production (SITE_URL is {settings.SITE_URL}).")
        if not 0 <= minutes <= 1_000_000:
            raise CommandError("--minutes must be a number from 0 to 1000000.")
        if what == "stuck":
            self.strand(id or "", minutes)
        else:
            self.analyse(what)

    def strand(self, id: str, minutes: float) -> None:
        try:
            job = lifecycle.strand(uuid.UUID(id), ago=timedelta(minutes=minutes), by="rehearse")
        except ValueError as error:
            raise CommandError(f"{id!r} is not a job's id.") from error
        except Refused as refused:
            raise CommandError(refused.detail) from refused
        self.stdout.write(f"{job.pk} looks as if its worker had stopped {minutes:g} minutes ago")

    def analyse(self, what: str) -> None:
        """Analyse the sample in this process, for a user of its own. CommandError if it does not end as documented."""
        from jobs.api.dialects import analysis

        changed, seconds, expected = REHEARSALS[what]
        settings.JOBSITE = {**settings.JOBSITE, **changed}
        job = self.submit(seconds)
        lease = lifecycle.claim(QUEUE)
        assert lease is not None
        assert lease.job_id == job.pk
        heart.slot = slots.register([])
        heart.start([], nudged=False)
        if what == "blob-retry":
            default_storage.save = _failing_twice(default_storage.save)
        if what == "cancel":
            threading.Timer(1.0, _cancel, [job.pk]).start()
        runner.run(lease)
        heart.stop()
        job.refresh_from_db()
        answer = analysis.summary(job)
        self.stdout.write(json.dumps(answer, indent=2, cls=JSONEncoder))
        if answer["status"] != expected:
            raise CommandError(f"It ended as {answer['status']}, not as {expected}.")
        self.stdout.write(f"{what}: as documented")

    def submit(self, seconds: float) -> Job:
        """The sample as a job of the user `rehearsal`, sold with one attempt of `seconds`."""
        owner, _ = get_user_model().objects.get_or_create(username="rehearsal")
        account = ledger.open_account(owner.pk)
        kind = kinds.get("ANALYZE")
        kind.queue, kind.limits = QUEUE, Limits(run=seconds, stall=seconds)
        upload = uploads.take_copy(owner.pk, SAMPLE)
        params = {"file": f"upload:{upload.pk}", "header": "auto"}
        ledger.grant(account.pk, 10, reason="rehearsal")
        return lifecycle.submit(owner.pk, kind.name, params, max_attempts=1)[0]


def _cancel(job_id: uuid.UUID) -> None:
    lifecycle.cancel(job_id, by="rehearse")
    connection.close()  # this thread's own


def _failing_twice(save: Callable[..., str]) -> Callable[..., str]:
    """A storage's `save` whose first two calls fail."""
    left = [1, 2]

    def flaky(*arguments, **options) -> str:
        if left:
            left.pop()
            raise OSError(errno.EIO, "Input/output error, as rehearsed")
        return save(*arguments, **options)

    return flaky
