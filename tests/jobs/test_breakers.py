"""One breaker for all workers: opens after failures in a window, is probed by one caller, closes or opens again."""

from datetime import timedelta

import pytest
from django.db import OperationalError
from django.db.models import F, QuerySet

from jobs import breakers
from jobs.engines.breaker import BreakerOpen
from jobs.kinds.base import Abort
from jobs.models import Breaker

pytestmark = pytest.mark.django_db


class Down(Exception):
    pass


@pytest.fixture(autouse=True)
def _limits(settings):
    settings.JOBSITE = {**settings.JOBSITE, "CIRCUIT_THRESHOLD": 3, "CIRCUIT_WINDOW": 300.0, "CIRCUIT_COOLDOWN": 600.0}


def fails(error=Down):
    def do():
        raise error

    with pytest.raises(error):
        breakers.breaker("llm").call(do, on=(Down,))


def works():
    return breakers.breaker("llm").call(lambda: "answer", on=(Down,))


def is_open() -> float:
    with pytest.raises(BreakerOpen) as refused:
        works()
    return refused.value.wait


def time_passes(seconds: float):
    row = Breaker.objects.get()
    row.failures = [at - seconds for at in row.failures]
    row.save()
    by = timedelta(seconds=seconds)
    Breaker.objects.update(opened_at=F("opened_at") - by)
    Breaker.objects.filter(probed_at__isnull=False).update(probed_at=F("probed_at") - by)


def test_it_opens_cools_down_and_closes_and_says_so(caplog):
    for _ in range(2):
        fails()
    assert works() == "answer"
    fails()
    assert 590 < is_open() <= 600
    assert [state[:2] for state in breakers.states()] == [("llm", "open")]
    time_passes(601)
    assert [state[:2] for state in breakers.states()] == [("llm", "half-open")]
    assert works() == "answer"
    assert works() == "answer"
    assert [record.message for record in caplog.records if record.name.startswith("jobs")] == [
        "Circuit breaker OPENING: 3 failures within 300s window (threshold: 3)",
        "Circuit breaker is OPEN. Using fallback.",
        "Circuit breaker cooldown complete. Closing circuit.",
    ]


def test_failures_outside_of_the_window_do_not_count():
    fails()
    fails()
    Breaker.objects.update(failures=[at - 301 for at in Breaker.objects.get().failures])
    fails()
    assert works() == "answer"


def test_a_failed_probe_opens_it_again_and_an_answer_of_any_kind_closes_it():
    for _ in range(3):
        fails()
    time_passes(601)
    fails()
    assert is_open() > 590
    time_passes(601)
    fails(ValueError)  # the service answered; what it said is the caller's trouble
    assert works() == "answer"


def test_one_caller_probes_and_a_cancelled_probe_lets_the_next_one_try():
    for _ in range(3):
        fails()
    time_passes(601)

    def cancelled():
        assert is_open() <= 5  # the others wait for this one
        raise Abort

    with pytest.raises(Abort):
        breakers.breaker("llm").call(cancelled, on=(Down,))
    assert works() == "answer"


def test_a_probe_that_died_with_its_worker_is_given_up():
    for _ in range(3):
        fails()
    time_passes(601)
    assert breakers._Rows().admit("llm") == (0.0, True)  # and never heard of again
    assert is_open() > 0
    time_passes(121)
    assert works() == "answer"


def test_targets_are_apart():
    for _ in range(3):
        fails()
    assert breakers.breaker("runpod").call(lambda: 1, on=(Down,)) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("probing", [False, True])
def test_a_database_that_is_away_takes_nobody_the_answer(monkeypatch, probing):
    """Of a request that is paid for: its id must not get lost on the way."""
    if probing:
        for _ in range(3):
            fails()
        time_passes(601)

    def away(*_, **__):
        raise OperationalError("gone")

    def ask():
        monkeypatch.setattr(QuerySet, "update", away)
        monkeypatch.setattr(QuerySet, "select_for_update", away)
        return "answer"

    assert breakers.breaker("llm").call(ask, on=(Down,)) == "answer"
    if not probing:
        fails()  # the service's own failure is what the caller is told
