import json

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError

from jobs import keys, people
from jobs.roles import ROLES
from jobs.words import tokens as tokens_in_words
from tokens.models import MOST

BY = "manage.py user"
COLUMNS = ["name", "email", "role", "state", "tokens", "live_jobs", "keys", "last_login"]


class Command(BaseCommand):
    """Users come in by invitation: `manage.py user add ann --email ann@example.com --tokens 100`."""

    help = "Invite users, list them, shut one out, let one in again, send a new link to choose a password."

    def add_arguments(self, parser):
        verbs = parser.add_subparsers(dest="verb", required=True)
        add = verbs.add_parser("add", help="make a user and give them a link to choose a password")
        add.add_argument("name")
        add.add_argument("--email", default="", help="where the link is sent if EMAIL_URL is set; else it is printed")
        add.add_argument("--tokens", type=int, default=0, metavar="N", help="whole tokens to start with")
        add.add_argument(
            "--role", choices=[role.value for role in ROLES], default="", help="what staff may do; customers have none"
        )
        add.add_argument("--key", action="store_true", help="also issue an API key (of the role's scope) and print it")
        invite = verbs.add_parser("invite", help="a new link to choose a password; ends no earlier one that was used")
        invite.add_argument("name")
        listed = verbs.add_parser("list", help="all users, with balance, live jobs and keys")
        listed.add_argument("--json", action="store_true", dest="as_json")
        deactivate = verbs.add_parser("deactivate", help="shut a user out; keys, sessions and streams end at once")
        deactivate.add_argument("name")
        deactivate.add_argument(
            "--cancel-jobs", action="store_true", help="cancel live jobs, too; else they go on and stay paid"
        )
        activate = verbs.add_parser("activate", help="let a user in again")
        activate.add_argument("name")

    def handle(self, *, verb, **options):
        getattr(self, f"_{verb}")(**options)

    def _add(self, *, name, email, tokens, role, key, **options):
        if not 0 <= tokens <= MOST:
            raise CommandError(f"--tokens must be from 0 to {MOST}.")
        try:
            user = people.add(name, email=email, role=role, tokens=tokens, by=BY)
        except ValidationError as wrong:
            said = [f"{field}: {' '.join(errors)}" for field, errors in wrong.message_dict.items()]
            raise CommandError("; ".join(said)) from None
        self.stdout.write(f"Added {user}{f' as {role}' if role else ''} with {tokens_in_words(tokens)}.")
        self._invite(name=name)
        if key:
            _, secret = keys.issue(user, "invitation", role or "user")
            self.stdout.write(f"Key, shown this once: {secret}")

    def _invite(self, *, name, **options):
        user = self._user(name)
        if not user.is_active:
            raise CommandError(f"{name} is shut out; `manage.py user activate {name}` comes first.")
        invited = people.invite(user)
        if invited.mailed:
            self.stdout.write(f"The link to choose a password was mailed to {user.email}.")
        else:
            self.stdout.write(f"Not mailed: {invited.why}. Give them this link; it works once, for three days:")
            self.stdout.write(invited.link)

    def _list(self, *, as_json: bool, **options):
        rows = [_row(user) for user in people.listed()]
        if as_json:
            self.stdout.write(json.dumps(rows, indent=2))
            return
        lines = [list(COLUMNS)] + [[str(row[name]) for name in COLUMNS] for row in rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            self.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def _deactivate(self, *, name, cancel_jobs, **options):
        go_on, cancelled = people.deactivate(self._user(name), cancel=cancel_jobs, by=BY)
        self.stdout.write(
            f"{name} is shut out: no key, session or stream of theirs works any more. "
            f"Live jobs: {cancelled} cancelled, {go_on} go on and stay paid."
        )

    def _activate(self, *, name, **options):
        people.activate(self._user(name), by=BY)
        self.stdout.write(f"{name} may come in again; password and keys work as before.")

    def _user(self, name: str):
        User = get_user_model()
        try:
            return User.objects.get_by_natural_key(name)
        except User.DoesNotExist:
            raise CommandError(f"There is no user {name}.") from None


def _row(user) -> dict:
    account = getattr(user, "account", None)
    roles = ["superuser"] if user.is_superuser else []
    return {
        "name": user.get_username(),
        "email": user.email,
        "role": " ".join(roles + [group.name for group in user.groups.all()]),
        "state": "active" if user.is_active else "shut out",
        "tokens": account.balance if account else 0,
        "live_jobs": user.live_jobs,
        "keys": user.live_keys,
        "last_login": f"{user.last_login:%Y-%m-%d %H:%M}" if user.last_login else "",
    }
