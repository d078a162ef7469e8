"""Open sign-up (SIGN_UP=open): a letter proves the address, and only then is there an account.

The letter's link carries name and address, signed. Nothing is stored until it is opened and a password chosen: nobody
takes a name with an address that is not theirs, and there is nothing to sweep.
"""

import logging

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.core import signing
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.db import IntegrityError
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.crypto import salted_hmac

from tokens import ledger

from . import people
from .errors import ErrorCode, Refused
from .transactions import one_at_a_time, write

log = logging.getLogger(__name__)
User = get_user_model()
SALT = "jobs.sign_up"
TAKEN = "This name is taken."


def is_open() -> bool:
    """Whether the operator lets strangers in."""
    return settings.JOBSITE["SIGN_UP"] == "open"


def ask(name: str, email: str) -> None:
    """Send exactly one letter to the address: the link, or that it has an account. The caller learns nothing of either.

    Whether the name is free is said to who opens the link. Refused(provider_error) if the mail server does not take it.
    Never call it in a transaction.
    """
    words = {"site": settings.SITE_URL, "name": name}
    if user := _of(email):
        if user.is_active and not user.has_usable_password():  # invited, and the first letter is lost
            sent = people.invite(user).mailed
        else:
            words |= {"user": user, "link": settings.SITE_URL + reverse("web:reset")}
            sent = _send(user.email, "You have an account", "mail/has_account.txt", words)
    else:
        token = signing.dumps([name, email], salt=SALT)
        words |= {"link": settings.SITE_URL + reverse("web:sign-up-confirm", args=[token])}
        sent = _send(email, "Make your account", "mail/sign_up.txt", words)
    if not sent:
        raise Refused(ErrorCode.provider_error, "The mail server did not take the letter.")


def asked(token: str) -> tuple[str, str] | None:
    """(name, address) of a letter's link; None if it is not ours, too old, or the address has an account by now."""
    try:
        name, email = signing.loads(token, salt=SALT, max_age=settings.PASSWORD_RESET_TIMEOUT)
    except signing.BadSignature:
        return None
    return None if _of(email) else (name, email)


def draft(name: str, email: str):
    """The account as it would be, unsaved. ValidationError if the name is taken or may not be."""
    user = people.new(name, email=email)
    if User.objects.filter(username__iexact=user.username).exists():  # Ann beside ann would pass for her
        raise ValidationError({"username": TAKEN})
    return user


def accept(name: str, email: str, password: str):
    """Make the account of a proven address, with its tokens. ValidationError if name or address were taken meanwhile.

    An address is given tokens once, whatever becomes of its account: the booking's reference is unique.
    """
    try:
        return _accept(name, email, make_password(password))  # slow on purpose: nobody waits for it
    except IntegrityError as error:  # at the same time
        raise ValidationError({"username": TAKEN}) from error


@write
def _accept(name: str, email: str, hashed: str):
    one_at_a_time("sign-up")  # no constraint keeps Ann from beside ann, nor an address from two accounts
    if _of(email):
        raise ValidationError({"username": "This address has an account by now."})
    user = draft(name, email)
    user.password = hashed
    user.save()
    account = ledger.open_account(user.pk)
    if tokens := settings.JOBSITE["SIGN_UP_TOKENS"]:
        reference = f"sign-up:{salted_hmac(SALT, email.casefold(), algorithm='sha256').hexdigest()[:32]}"
        try:
            ledger.grant(account.pk, tokens, reference=reference, reason="signed up", key="sign-up")
        except ledger.ReferenceUsed:
            log.info("User %s signed up with an address that was given its tokens before", user.pk)
    log.info("User %s signed up", user.pk)
    return user


def _of(email: str):
    """Who has that address, shut out or not."""
    return User.objects.filter(email__iexact=email).order_by("pk").first()


def _send(email: str, subject: str, template: str, words: dict) -> bool:
    try:
        EmailMessage(f"{subject} at {people.host()}", render_to_string(template, words), to=[email]).send()
    except (OSError, ValueError) as error:  # smtplib's are OSErrors; an address that no mail can have is the other
        log.warning("A letter about signing up could not be mailed: %s", type(error).__name__)
        return False
    return True
