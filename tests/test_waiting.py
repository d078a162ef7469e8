import pytest

from tests.waiting import until


def test_returns_the_first_true_answer():
    answers = iter([None, 0, "ready"])
    assert until(lambda: next(answers), every=0) == "ready"


def test_names_the_condition_that_never_came_true():
    def door_open():
        return False

    with pytest.raises(AssertionError, match="door_open"):
        until(door_open, seconds=0.05)
