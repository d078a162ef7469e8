from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError
from django.db import transaction

from jobs import keys, people
from jobs.models import Scope
from tokens import ledger
from tokens.models import MOST


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
        if not 0 <= tokens <= MOST:
            raise CommandError(f"--tokens must be from 0 to {MOST}.")
        if not 1 <= len(name.strip()) <= 80:
            raise CommandError("--name must have 1 to 80 characters.")
        User = get_user_model()
        try:
            with transaction.atomic():
                owner = User.objects.filter(username=user).first()
                if owner is None and not create:
                    raise CommandError(f"There is no user {user}; --create makes one.")
                owner = owner or people.add(user, by="manage.py api_key")
                account = ledger.open_account(owner.pk)
                if tokens:
                    ledger.grant(account.pk, tokens, reason="manage.py api_key")
                _, secret = keys.issue(owner, name.strip(), scope)
        except ValidationError as wrong:
            raise CommandError(" ".join(wrong.messages)) from None
        except ledger.BalanceTooLarge as wrong:
            raise CommandError(f"{user} would have more than {MOST} tokens.") from wrong
        self.stdout.write(secret)
