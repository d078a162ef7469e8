"""Nudges on a bad day of this process. What the broker does to them is in tests/faults."""

import threading

import pytest
from celery import current_app
from kombu.exceptions import OperationalError as BrokerError

from jobs import dispatch


@pytest.fixture(autouse=True)
def _own_connections():
    dispatch.forget_connections()
    yield
    dispatch.forget_connections()


def test_two_threads_that_meet_a_dead_broker_at_once_both_say_so(monkeypatch):
    """The upkeep worker's watchman and its nudges: what died of the other's failure sent no nudge any more."""
    failed = []

    def other():
        with pytest.raises(BrokerError):
            dispatch.send("cpu")
        failed.append(threading.current_thread())

    def away(*_args, **_options):
        if threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        raise BrokerError

    monkeypatch.setattr(current_app, "send_task", away)
    with pytest.raises(BrokerError):
        dispatch.send("cpu")
    assert len(failed) == 1


def test_a_process_that_once_had_no_room_for_its_thread_sends_later(monkeypatch):
    sent, sender = [], dispatch._Sender()
    monkeypatch.setattr(dispatch, "send", lambda queue, **_options: sent.append(queue))

    def no_room(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_room)
        with pytest.raises(RuntimeError):
            sender.want("cpu")
    sender.want("gpu")
    sender.flush(10)
    assert sent == ["gpu"]
