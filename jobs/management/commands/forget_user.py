from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, CommandError

from jobs import erasure


class Command(BaseCommand):
    """`manage.py forget_user ann --execute`; run it again if it was broken off."""

    help = "Delete all that a user has, name and address too; the ledger's lines stay. Shows what; --execute does it."

    def add_arguments(self, parser):
        parser.add_argument("name")
        parser.add_argument("--execute", action="store_true")

    def handle(self, *, name, execute, **options):
        User = get_user_model()
        user = User.objects.filter(username=name).first()
        if user is None:
            raise CommandError(f"There is no user {name}.")
        if erasure.is_last_admin(user):
            raise CommandError(f"{name} is the last superuser; make another one first.")
        if not execute:
            self.stdout.write(f"would delete {_words(erasure.belongings(user))}, and the name; --execute does it")
            return
        left = erasure.forget(user, by="manage.py forget_user")
        if left:
            raise CommandError(f"Still there: {_words(left)}. Run it again.")
        self.stdout.write(f"{name} is forgotten, and is {user.get_username()} from now on.")


def _words(found: erasure.Belongings) -> str:
    return (
        f"{found.jobs} jobs ({found.live_jobs} live: cancelled and refunded first), {found.outputs} outputs, "
        f"{found.uploads} uploads, {found.bytes} bytes, {found.keys} keys, {found.webhooks} webhooks"
    )
