from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, CommandError
from django.db import transaction

from jobs import keys
from jobs.models import Scope
from tokens import ledger


class Command(BaseCommand):
    """For scripts: `KEY=$(manage.py api_key ann --create --tokens 100)`."""

    help = "Print a new API key of a user and nothing else. The key is kept nowhere: only its hash is."

    def add_arguments(self, parser):
        parser.add_argument("user", help="the user's name")
        parser.add_argument("--create", action="store_true", help="make the user if there is none of that name")
        parser.add_argument("--tokens", type=int, default=0, metavar="N", help="also grant so many tokens")
        parser.add_argument("--scope", choices=Scope.values, default=Scope.USER, help="what the key may do")
        parser.add_argument("--name", default="command line", help="what the key is listed as")

    def handle(self, *, user, create, tokens, scope, name, **options):
        if tokens < 0:
            raise CommandError("--tokens must be at least 0.")
        User = get_user_model()
        with transaction.atomic():
            owner = User.objects.filter(username=user).first()
            if owner is None and not create:
                raise CommandError(f"There is no user {user}; --create makes one.")
            owner = owner or User.objects.create_user(user)
            account = ledger.open_account(owner.pk)
            if tokens:
                ledger.grant(account.pk, tokens, reason="manage.py api_key")
            _, secret = keys.issue(owner, name, scope)
        self.stdout.write(secret)
