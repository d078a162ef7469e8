"""Limits, back-off and refund rules: pure functions of numbers and codes."""

import random
from datetime import timedelta

from .errors import ErrorCode

ROUND_ATTEMPTS = 20  # claims in one round, hand-backs included: no round goes on for ever
HANDED_BACK = {ErrorCode.worker_shutdown}  # do not spend an attempt


def backoff(failures: int, *, initial: float, factor: float, most: float, jitter: float | None = None) -> timedelta:
    """How long to wait after the `failures`-th failure: exponential, capped at `most` seconds, 75 to 100 % of it.

    The jitter (0.0 to 1.0, random unless given) keeps jobs that failed together from coming back together.
    """
    jitter = random.random() if jitter is None else jitter
    wait = min(most, initial * factor ** min(failures - 1, 60))
    return timedelta(seconds=wait * (0.75 + 0.25 * jitter))


def tries_again(
    code: ErrorCode,
    *,
    retryable: bool,
    failures: int,
    max_attempts: int,
    round_attempts: int,
    postponed: bool = False,
) -> tuple[bool, int]:
    """Whether an attempt that ended in `code` is followed by another, and the failures to book for the round.

    A hand-back at shutdown spends nothing, except that a job sold with one attempt is failed, not handed back. What
    was postponed, since an outside service is known to be down, spends nothing either.
    """
    if postponed or (code in HANDED_BACK and max_attempts > 1):
        return round_attempts < ROUND_ATTEMPTS, failures
    failures += 1
    return retryable and failures < max_attempts and round_attempts < ROUND_ATTEMPTS, failures


def cleanup_timeout(configured: float, beat: float) -> float:
    """Seconds without a beat that make a job stuck: never less than 15 s or five beats, whatever was asked for."""
    return max(configured, 15.0, 5 * beat)


def lease_deadline(timeout: float) -> float:
    """Seconds after its last successful beat that a run may still believe in its lease."""
    return 0.8 * timeout
