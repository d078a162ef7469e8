"""Prices, limits, back-off and refund rules: pure functions of numbers and codes."""

import math
import random
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from .errors import ErrorCode
from .kinds.base import Limits
from .models import CancelRefund, StaleAction

ROUND_ATTEMPTS = 20  # claims in one round, hand-backs included: no round goes on for ever
HANDED_BACK = {ErrorCode.worker_shutdown}  # do not spend an attempt


@dataclass(frozen=True)
class Rule:
    """What the operator wants of one kind and tier; None leaves it to the kind. `docs/policies.md` explains each."""

    price_percent: int = 100
    run_limit: float | None = None  # seconds, as all that follow
    stall_limit: float | None = None
    max_attempts: int | None = None
    timeout_seconds: float | None = None
    stale_action: str = StaleAction.RETRY
    cancel_refund: str = CancelRefund.FULL


def price(own: int, rule: Rule) -> int:
    """What a job costs whose kind asks for `own` tokens: whole tokens, rounded up."""
    return -(-own * rule.price_percent // 100)


def limits(own: Limits, rule: Rule) -> Limits:
    """The limits that a job is sold with."""
    return Limits(
        run=rule.run_limit or own.run,
        stall=rule.stall_limit or own.stall,
        attempts=rule.max_attempts or own.attempts,
    )


def attempts(asked: int | None, own: Limits, rule: Rule) -> int:
    """The attempts that a job is sold with: as asked for, but no more than a policy gives; else its kind's."""
    if asked is None:
        return rule.max_attempts or own.attempts
    return min(asked, rule.max_attempts or asked)


def back_if_cancelled(paid: int, rule: str | None, *, running: bool, progress: float) -> int:
    """Whole tokens that cancelling a job of price `paid` gives back: all, unless it runs and its rule says less.

    The unused part is what is left of `progress` (0.0 to 1.0), rounded up: in the user's favour.
    """
    if not running or rule in (None, CancelRefund.FULL):
        return paid
    if rule == CancelRefund.NONE:
        return 0
    left = 1 - Decimal(repr(progress))  # as the number reads: 1 - 0.7 in floats is a little more than 0.3
    return min(paid, max(0, math.ceil(paid * left)))


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
