import contextlib
import signal

from django.core.management import BaseCommand, CommandError

from jobs.engines.fake_runpod import FakeRunpod
from jobs.engines.fake_runpod_jobs import FAULTS


class Command(BaseCommand):
    """RunPod on this machine, to rehearse with: it draws previews and costs nothing."""

    help = "Run a local RunPod that draws previews and fails on demand; prints the settings that lead to it."
    requires_system_checks = []

    def add_arguments(self, parser):
        parser.add_argument("--port", type=int, default=8787, help="on 127.0.0.1 (default 8787)")
        parser.add_argument("--workers", type=int, default=2, help="jobs that it draws at once (default 2)")
        parser.add_argument("--cold", type=float, default=20.0, help="seconds of the fault cold_start (default 20)")
        parser.add_argument("--slow", type=float, default=15.0, help="seconds of the slow faults (default 15)")

    def handle(self, *, port, workers, cold, slow, **options):
        if workers < 1:
            raise CommandError("--workers must be at least 1.")
        try:
            fake = FakeRunpod(port=port, workers=workers, cold=cold, slow=slow)
        except (OSError, OverflowError) as wrong:
            raise CommandError(f"Cannot listen on 127.0.0.1 port {port} ({wrong}); give another --port.") from None
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self.stdout.write("RunPod's fake is up; end it with Ctrl-C. Start Jobsite with these:")
        self.stdout.write(f"export RENDER_ENGINE=runpod RUNPOD_BASE_URL={fake.base_url}")
        self.stdout.write(f"export RUNPOD_API_KEY={fake.key} RUNPOD_ENDPOINT_ID={fake.name}")
        self.stdout.write("Words in a prompt that make it fail (#throttled:2 is twice):")
        for name, words in FAULTS.items():
            self.stdout.write(f"  #{name:15} {words}")
        self.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            fake.serve()
