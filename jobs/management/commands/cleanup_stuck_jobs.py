import json

from django.core.management import BaseCommand, CommandError

from jobs import cleanup
from jobs.errors import Refused


class Command(BaseCommand):
    help = "Settle and refund jobs whose worker is gone or that ran too long. Shows what is stuck; --execute ends it."

    def add_arguments(self, parser):
        parser.add_argument("--timeout", type=float, help="seconds without a heartbeat (default JOB_CLEANUP_TIMEOUT)")
        parser.add_argument("--batch-size", type=int, help="jobs in one transaction (default JOB_CLEANUP_BATCH)")
        parser.add_argument("--json", action="store_true", help="print the whole report as one JSON object")
        parser.add_argument("--execute", action="store_true", help="do it; without it nothing of a job is changed")

    def handle(self, *, timeout, batch_size, execute, **options):
        try:
            run = cleanup.cleanup_stuck_jobs(by="command", timeout=timeout, batch_size=batch_size, dry_run=not execute)
        except Refused as refused:
            said = [f"--{name.replace('_', '-')}: {detail}" for name, _, detail in refused.fields]
            raise CommandError(" ".join(said) or refused.detail) from refused
        if options["json"]:
            names = ["found", "cleaned", "retried", "failed", "tokens_refunded", "dry_run", "timeout", "jobs", "errors"]
            self.stdout.write(json.dumps({name: getattr(run, name) for name in names}))
        else:
            for line in run.jobs:
                became = f" → {line['status']}, {line['tokensRefunded']} tokens refunded" if execute else ""
                self.stdout.write(f"{line['jobId']} {line['kind']} of user {line['userId']}{became}")
            for line in run.errors:
                self.stderr.write(f"{line['jobId']} could not be settled: {line['error']}")
            if execute:
                self.stdout.write(
                    f"cleaned up {run.cleaned} of {run.found} jobs, {run.tokens_refunded} tokens refunded"
                )
            else:
                self.stdout.write(f"would clean up {run.found} jobs; --execute does it")
        if run.failed:
            raise CommandError(f"{run.failed} jobs could not be settled.")
