"""Waiting for what another process or thread does: on a condition, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def until(condition: Callable[[], Value], *, seconds: float = 10.0, every: float = 0.05) -> Value:
    """Ask `condition` until it answers something true, and return that. AssertionError names it after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            name = getattr(condition, "__qualname__", repr(condition))
            raise AssertionError(f"not true within {seconds} s: {name}; the last answer was {value!r}")
        time.sleep(every)
