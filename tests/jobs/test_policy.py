"""Pure rules, by table."""

import pytest

from jobs import policy
from jobs.errors import ErrorCode


@pytest.mark.parametrize(
    ("failures", "jitter", "seconds"),
    [(1, 1.0, 5.0), (1, 0.0, 3.75), (2, 1.0, 10.0), (3, 1.0, 20.0), (50, 1.0, 300.0), (10_000, 0.0, 225.0)],
)
def test_backoff_doubles_up_to_its_cap(failures, jitter, seconds):
    wait = policy.backoff(failures, initial=5, factor=2, most=300, jitter=jitter)
    assert wait.total_seconds() == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("code", "retryable", "failures", "tries", "claims", "expected"),
    [
        ("worker_timeout", True, 0, 3, 1, (True, 1)),
        ("worker_timeout", True, 2, 3, 3, (False, 3)),
        ("ffmpeg_error", False, 0, 3, 1, (False, 1)),
        ("ffmpeg_error", True, 0, 3, 1, (True, 1)),
        ("worker_shutdown", True, 0, 3, 1, (True, 0)),
        ("worker_shutdown", True, 0, 1, 1, (False, 1)),  # sold with one attempt
        ("worker_shutdown", True, 0, 3, 20, (False, 0)),  # no round goes on for ever
    ],
)
def test_who_is_tried_again(code, retryable, failures, tries, claims, expected):
    told = policy.tries_again(
        ErrorCode[code], retryable=retryable, failures=failures, max_attempts=tries, round_attempts=claims
    )
    assert told == expected


def test_what_was_postponed_spends_nothing_even_of_a_single_attempt():
    once = {"retryable": True, "failures": 0, "max_attempts": 1, "postponed": True}
    assert policy.tries_again(ErrorCode.provider_error, round_attempts=1, **once) == (True, 0)
    assert policy.tries_again(ErrorCode.provider_error, round_attempts=20, **once) == (False, 0)


def test_a_cleanup_timeout_is_never_shorter_than_five_beats():
    assert policy.cleanup_timeout(1, 2) == 15
    assert policy.cleanup_timeout(1, 10) == 50
    assert policy.cleanup_timeout(300, 2) == 300
