"""A circuit breaker: after repeated failures an outside service is left alone for a while, by all workers together."""

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


class BreakerOpen(Exception):
    """The service is left alone; it was not called. `wait`: seconds until a call may be tried."""

    def __init__(self, target: str, wait: float):
        super().__init__(f"{target} is left alone for {wait:.0f} s after repeated failures")
        self.wait = wait


class Store(Protocol):
    """Where a target's state is kept for all workers."""

    def admit(self, target: str) -> tuple[float, bool]:
        """(seconds to wait, 0 if the call may go on; whether this call is the one that probes a cooled-down target)."""

    def failed(self, target: str, *, probing: bool) -> None: ...

    def answered(self, target: str) -> None:
        """The probe was answered: close."""

    def released(self, target: str) -> None:
        """The probe was given up without a verdict: let another one probe."""


class Breaker:
    """One target's breaker over a shared store: closed, open for a cool-down, then probed by one call at a time."""

    def __init__(self, target: str, store: Store):
        self.target, self.store = target, store

    def call(self, do: Callable[[], T], *, on: tuple[type[Exception], ...]) -> T:
        """Call `do`. An exception of `on` counts as a failure of the service and is raised on; any other is an answer.

        BreakerOpen, with `do` not called, while the breaker is open.
        """
        wait, probing = self.store.admit(self.target)
        if wait:
            log.warning("Circuit breaker is OPEN. Using fallback.")
            raise BreakerOpen(self.target, wait)
        try:
            result = do()
        except on:
            self.store.failed(self.target, probing=probing)
            raise
        except BaseException as error:
            if probing and isinstance(error, Exception):
                self.store.answered(self.target)
            elif probing:  # cancelled meanwhile
                self.store.released(self.target)
            raise
        if probing:
            self.store.answered(self.target)
        return result
