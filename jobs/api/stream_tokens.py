"""Stream tokens: a browser's EventSource sends no headers, and a key must not stand in an address. A token may: it
opens the events of one job, for ten minutes, as long as the key that asked for it lives."""

import time
import uuid
from typing import NamedTuple

from django.core import signing

from .. import keys
from ..models import ApiKey

SECONDS = 600
LONGEST = 300  # characters of a token; ours have about half
PREFIX = "jst_"  # by which logs know it
SALT = "jobs.stream"


class Opened(NamedTuple):
    """What a good token says."""

    key: ApiKey  # with its owner
    until: float  # monotonic


def issue(key: ApiKey, job_id: uuid.UUID) -> str:
    """A token for the events of that job."""
    return PREFIX + signing.Signer(salt=SALT).sign_object([key.pk, job_id.hex, int(time.time()) + SECONDS])


def opened(token: str, job_id: uuid.UUID) -> Opened | None:
    """None if the token is not one of ours, too old, for another job, or its key has ended."""
    if not token.startswith(PREFIX) or len(token) > LONGEST:
        return None
    try:
        key_id, job, expires = signing.Signer(salt=SALT).unsign_object(token.removeprefix(PREFIX))
    except signing.BadSignature:
        return None
    left = expires - time.time()
    if job != job_id.hex or left <= 0:
        return None
    key = keys.live().filter(pk=key_id).first()
    return key and Opened(key, time.monotonic() + left)
