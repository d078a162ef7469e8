"""Calling an outside service again after a failure that may pass: exponential back-off with jitter."""

import logging
from collections.abc import Callable
from typing import TypeVar

import tenacity

T = TypeVar("T")
log = logging.getLogger(__name__)
STEP = 0.25  # seconds between two looks whether the wait is to end


def call(
    do: Callable[[], T],
    *,
    label: str,
    tries: int,
    on: tuple[type[Exception], ...],
    initial: float,
    factor: float,
    most: float,
    check: Callable[[], None] = lambda: None,
    quiet: bool = False,
) -> T:
    """Call `do` up to `tries` times while it raises one of `on`; the last one's exception is raised on.

    Waits `initial` seconds times `factor` for each failure, at most `most`, 75 to 100 % of it. `check` is called
    before each try and while waiting; what it raises ends the wait. `label` is logged with each try, so it must hold no
    secret; if `quiet`, the first try is not worth a line. An exception with a `retry_after` (seconds) is waited for at
    least that long, up to `most`.
    """

    def wait(state: tenacity.RetryCallState) -> float:
        failed = state.outcome.exception() if state.outcome else None
        asked = min(most, getattr(failed, "retry_after", None) or 0.0)
        return max(asked, backoff(state))

    def sleep(seconds: float) -> None:
        while seconds > 0:
            check()
            tenacity.nap.sleep(min(STEP, seconds))
            seconds -= STEP

    def announce(state: tenacity.RetryCallState) -> None:
        check()
        first = logging.DEBUG if quiet else logging.INFO
        level = first if state.attempt_number == 1 else logging.WARNING
        log.log(level, "%s: Attempt %s/%s", label, state.attempt_number, tries)

    exponential = tenacity.wait_exponential(multiplier=initial, exp_base=factor, max=most)
    jitter = tenacity.wait_random(0.75, 1.0)

    def backoff(state: tenacity.RetryCallState) -> float:
        return exponential(state) * jitter(state)

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(tries),
        retry=tenacity.retry_if_exception_type(on),
        wait=wait,
        sleep=sleep,
        before=announce,
        reraise=True,
    )(do)
