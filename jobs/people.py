"""Users: invited by the operator, given a role, shut out, let in again. Who only signs in needs nothing of this;
`sign_up` has those who come by themselves."""

import logging
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.auth.tokens import default_token_generator
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from tokens import ledger

from . import lifecycle
from .errors import Refused
from .models import LIVE, ApiKey, Job
from .roles import ROLES
from .transactions import write

log = logging.getLogger(__name__)
User = get_user_model()

FORGOTTEN = "forgotten-"  # what the name of a forgotten user begins with


@dataclass(frozen=True)
class Invited:
    """How a user gets in: the link to choose a password, and whether it went out by mail."""

    link: str  # a secret: whoever has it may choose the password, once
    mailed: bool
    why: str = ""  # why it was not mailed


def new(name: str, *, email: str = "", role: str = "", unique: bool = True):
    """An unsaved user without a password; staff if there is a role. ValidationError names what is wrong; of a name that
    is taken only if it is to be `unique`."""
    user = User(username=name, email=User.objects.normalize_email(email), is_staff=bool(role))
    user.set_unusable_password()
    if name.lower().startswith(FORGOTTEN):
        raise ValidationError({"username": f"Names that begin with {FORGOTTEN} are kept for users who were forgotten."})
    if role and role not in ROLES:
        raise ValidationError({"username": f"There is no role {role}."})
    user.full_clean(validate_unique=unique)
    return user


@write
def add(name: str, *, email: str = "", role: str = "", tokens: int = 0, by: str):
    """Make a user without a password, with `tokens` (0 or more) and, for staff, a role of ROLES. ValidationError names
    what is wrong; nothing is written then."""
    user = new(name, email=email, role=role)
    user.save()
    if role:
        user.groups.add(Group.objects.get(name=role))
    account = ledger.open_account(user.pk)
    if tokens:
        ledger.grant(account.pk, tokens, reason=f"invited by {by}")
    return user


def invite(user) -> Invited:
    """Give the user a link to choose a password: by mail if EMAIL_URL is set and the user has an address.

    Django's own reset token: it ends with its use, with a sign-in, with a new address and after three days. Talks to
    the mail server, so never call it in a transaction.
    """
    link = settings.SITE_URL + reverse(
        "web:reset-confirm",
        args=[urlsafe_base64_encode(force_bytes(user.pk)), default_token_generator.make_token(user)],
    )
    if not settings.MAIL or not user.email:
        return Invited(link, False, "EMAIL_URL is not set" if user.email else "the user has no e-mail address")
    words = {"user": user, "link": link, "site": settings.SITE_URL}
    try:
        EmailMessage(f"Your account at {host()}", render_to_string("mail/invited.txt", words), to=[user.email]).send()
    except (OSError, ValueError) as error:  # smtplib's are OSErrors; an address that no mail can have is the other
        log.warning("The invitation of user %s could not be mailed: %s", user.pk, type(error).__name__)
        return Invited(link, False, f"the mail server did not take it ({type(error).__name__})")
    return Invited(link, True)


def host() -> str:
    """What letters call this platform."""
    return settings.SITE_URL.partition("://")[2]


def deactivate(user, *, cancel: bool, by: str) -> tuple[int, int]:
    """Shut a user out: keys, sessions and streams end at once. Jobs that were sold go on and are paid, unless
    `cancel`: then each live one is cancelled by the rules of cancelling. Returns (jobs that go on, jobs cancelled)."""
    User.objects.filter(pk=user.pk).update(is_active=False)
    user.is_active = False
    log.info("User %s was deactivated by %s", user.pk, by)
    cancelled = cancel_all(user, by=by) if cancel else 0
    return Job.objects.filter(owner=user, status__in=LIVE).count(), cancelled


def activate(user, *, by: str) -> None:
    """Let a user in again: the password and the keys that were not revoked work as before."""
    User.objects.filter(pk=user.pk).update(is_active=True)
    user.is_active = True
    log.info("User %s was activated by %s", user.pk, by)


def cancel_all(user, *, by: str) -> int:
    """Cancel every live job of the user. Returns how many; one that ends by itself meanwhile is none."""
    done = 0
    for job_id in Job.objects.filter(owner=user, status__in=LIVE).values_list("pk", flat=True):
        try:
            lifecycle.cancel(job_id, by=by)
            done += 1
        except Refused:
            continue
    return done


def listed() -> QuerySet:
    """All users by name, each with `live_jobs` and `live_keys`, and the account where there is one."""

    def count(rows: QuerySet) -> Coalesce:
        of_one = rows.filter(owner=OuterRef("pk")).order_by().values("owner").annotate(n=Count("*"))
        return Coalesce(Subquery(of_one.values("n")), 0)

    users = User.objects.select_related("account").prefetch_related("groups").order_by("username")
    return users.annotate(
        live_jobs=count(Job.objects.filter(finished_at=None)), live_keys=count(ApiKey.objects.filter(revoked_at=None))
    )
