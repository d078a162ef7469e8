"""Whose account a member of staff may book tokens for, whichever face they come through."""

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser

OWN = "Nobody but a superuser books tokens for their own account."


def may_book_for(person: AbstractBaseUser | AnonymousUser, account_id: int) -> bool:
    """Whether `person`, who has the right to book tokens, may do it for this account: not for their own.

    A superuser may (the ledger and the log show it): whoever can make accounts could not be kept from it.
    """
    return person.pk != account_id or bool(getattr(person, "is_superuser", False))
