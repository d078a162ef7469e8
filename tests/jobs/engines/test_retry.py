"""Calls again after what may pass, waits longer each time, stops when told."""

import pytest

from jobs.engines import retry


class Down(Exception):
    def __init__(self, retry_after=None):
        self.retry_after = retry_after


@pytest.fixture
def waits(monkeypatch):
    slept = []
    monkeypatch.setattr("tenacity.nap.sleep", slept.append)
    return slept


def call(do, tries=3, **options):
    given = {"initial": 0.2, "factor": 2.0, "most": 0.25, "on": (Down,), "label": "Save file a.csv for job 1"}
    return retry.call(do, tries=tries, **{**given, **options})


def failing(times, error=Down):
    left = [error() if isinstance(error, type) else error] * times

    def do():
        if left:
            raise left.pop()
        return "done"

    return do


def test_it_tries_again_and_says_so(waits, caplog):
    caplog.set_level("INFO")
    assert call(failing(2)) == "done"
    assert [record.message for record in caplog.records] == [
        "Save file a.csv for job 1: Attempt 1/3",
        "Save file a.csv for job 1: Attempt 2/3",
        "Save file a.csv for job 1: Attempt 3/3",
    ]
    first, second = waits
    assert 0.15 <= first <= 0.2
    assert 0.1875 <= second <= 0.25


def test_the_last_failure_is_raised_and_another_kind_at_once(waits):
    with pytest.raises(Down):
        call(failing(3))
    with pytest.raises(ZeroDivisionError):
        call(lambda: 1 / 0)
    assert len(waits) == 2


def test_it_waits_as_long_as_it_was_asked_to_but_not_longer_than_allowed(waits):
    call(failing(1, Down(retry_after=0.2)), most=10.0, initial=0.01)
    assert sum(waits) == pytest.approx(0.2)
    waits.clear()
    call(failing(1, Down(retry_after=3600)), most=1.0, initial=0.01)
    assert sum(waits) == pytest.approx(1.0)


def test_what_check_raises_ends_the_wait(waits):
    def check():
        if waits:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(failing(2), most=60.0, initial=60.0, check=check)
    assert len(waits) == 1
