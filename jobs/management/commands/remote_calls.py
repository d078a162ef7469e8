from django.core.management import BaseCommand

from jobs import remote


class Command(BaseCommand):
    help = "Show what runs on RunPod though nobody waits for it; --sweep cancels it. Exit 1 if something is left."

    def add_arguments(self, parser):
        parser.add_argument("--sweep", action="store_true", help="cancel it now; Beat does so every minute")

    def handle(self, *, sweep, **options):
        if sweep:
            self.stdout.write(f"ended: {remote.sweep().ended}")
        left = list(remote.strays())
        for call in left:
            self.stdout.write(
                f"{call.remote_id or 'id not known':40}  job {call.job_id} attempt {call.attempt}  {call.state}  "
                f"{call.cancel_tries} cancels failed  over by itself at {call.ends_at:%Y-%m-%d %H:%M:%S}  {call.error}"
            )
        self.stdout.write(f"strays: {len(left)}")
        if left:
            raise SystemExit(1)
