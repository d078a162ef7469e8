import contextlib
import secrets

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core import checks
from django.core.management import BaseCommand, CommandError, call_command
from django.db import connections, transaction

from jobs import doctor, keys, upkeep
from jobsite import supervisor
from tokens import ledger

FIRST_TOKENS = 1000  # what the first admin starts with, so that the curl line works


class Command(BaseCommand):
    """One command for the whole platform on one machine."""

    help = "Start broker, web, workers and Beat, keep them up, end them on Ctrl-C or TERM. Migrates first."
    requires_migrations_checks = False

    def handle(self, **options):
        try:
            supervisor.up(before=self.prepare, announce=self.announce)
        except supervisor.CannotStart as why:
            raise CommandError(str(why)) from None

    def prepare(self) -> None:
        """Bring the database up to date and, the first time, make an admin with a key."""
        call_command("migrate", verbosity=0, interactive=False)
        upkeep.install()  # periods follow the settings of this start
        self.key = ""
        self.first_admin()
        self.warn()
        connections.close_all()  # this process only watches from here on

    def first_admin(self) -> None:
        """An admin for the first start. Told before it is kept: what ends this start must not end it with a password
        that nobody has read."""
        User = get_user_model()
        if User.objects.filter(is_superuser=True).exists():
            return
        if User.objects.filter(username="admin").exists():  # made by `manage.py user add`, before the first start
            self.stderr.write(
                "No superuser is here, and the name admin is taken: make one by manage.py createsuperuser."
            )
            return
        password = secrets.token_urlsafe(12)
        with transaction.atomic():
            admin = User.objects.create_superuser("admin", password=password)
            account = ledger.open_account(admin.pk)
            ledger.grant(account.pk, FIRST_TOKENS, reason="first start")
            _, self.key = keys.issue(admin, "first start", "admin")
            self.stdout.write("This is the first start, so there is an admin now:")
            self.stdout.write(f"  user    admin\n  password {password}   (shown this once)\n  key     {self.key}")
            self.stdout.flush()

    def warn(self) -> None:
        """What the doctor finds before a start; `manage.py doctor` asks the running platform, too."""
        for message in (message for one in doctor.EXAMINATIONS if not one.live for message in one()):
            if message.level >= checks.WARNING:
                with contextlib.suppress(OSError):
                    self.stderr.write(f"{message.id}: {message.msg}\n  → {message.hint}")

    def announce(self) -> None:
        """Say where it is. Whoever read our words may have left, or their disk be full: the platform goes on."""
        with contextlib.suppress(OSError):
            self.greet()

    def greet(self) -> None:
        url = settings.SITE_URL
        self.stdout.write(f"Jobsite is up at {url}")
        self.stdout.write(f"  admin   {url}/admin/\n  docs    {url}/api/docs/\n  logs    {settings.LOG_DIR}")
        if self.key:
            self.stdout.write(
                f"""Try it:
  curl -s {url}/api/jobs/ -H 'Authorization: Bearer {self.key}' \\
    -H 'Content-Type: application/json' -d '{{"kind": "RENDER", "params": {{"prompt": "a quiet harbour at dawn"}}}}'"""
            )
        self.stdout.flush()
