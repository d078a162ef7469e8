"""The short way of a nudge, with a real broker: who rings may believe that somebody heard."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError as BrokerError

from jobs import dispatch, doorbell
from jobsite import broker
from jobsite.celery import app
from tests.waiting import until


@pytest.fixture
def valkey():
    """A broker of one's own, as this process's Celery knows it."""
    folder = Path(tempfile.mkdtemp(prefix="jb-"))  # short: it holds the broker's socket
    command = [broker.binary(), "--port", "0", "--unixsocket", str(folder / "b"), "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until((folder / "b").exists, seconds=20)
    dispatch.flush(5)
    dispatch.forget_connections()
    app.conf.broker_write_url = f"redis+socket://{folder / 'b'}"
    yield process
    dispatch.flush(5)
    dispatch.forget_connections()
    app.conf.broker_write_url = None
    process.kill()
    process.wait()
    shutil.rmtree(folder)


@pytest.fixture
def ears():
    """Listens in a thread; `listen` returns the future of what it hears."""
    mine = doorbell.Ears()
    with ThreadPoolExecutor(1) as thread:

        def listen(*queues, seconds=20.0, look=lambda: None, stop=lambda: False):
            return thread.submit(mine.listen, queues, seconds, look=look, stop=stop)

        yield listen


def rung(queue: str) -> bool:
    return doorbell.Bells().ring(queue)


def test_a_ring_is_heard_and_only_who_listens_is_rung(valkey, ears):
    assert not rung("cpu")  # a message has to be sent
    heard = ears("cpu", "gpu")
    assert not rung("remote")
    until(lambda: rung("gpu"), seconds=10)
    assert heard.result(10) == "gpu"
    assert not rung("gpu") and not rung("cpu")  # it works now, and hears no other


def test_an_earlier_ring_is_not_heard_again(valkey, ears):
    first = ears("cpu")
    until(lambda: rung("cpu"), seconds=10)
    first.result(10)
    rows = iter([None, None])
    assert ears("cpu", seconds=0.2, look=lambda: next(rows)).result(10) is None
    assert next(rows, "asked twice") == "asked twice"


def test_what_came_between_the_last_claim_and_the_listening_is_found(valkey, ears):
    assert ears("cpu", look=lambda: "cpu").result(10) == "cpu"


def test_a_queue_that_always_rings_keeps_no_other_waiting(valkey, ears):
    over = threading.Event()

    def ring_on():
        bells = doorbell.Bells()
        while not over.wait(0.001):
            bells.ring("cpu")

    with ThreadPoolExecutor(1) as thread:
        thread.submit(ring_on)
        try:
            until(lambda: ears("cpu", "gpu", look=lambda: "gpu").result(10) == "gpu", seconds=10)
            until(lambda: ears("cpu", "gpu", look=lambda: "gpu").result(10) == "gpu", seconds=10)
        finally:
            over.set()


def test_what_was_rung_to_one_that_stops_is_not_lost(valkey, ears):
    stopping, due = threading.Event(), []
    heard = ears("cpu", look=lambda: (due and due[0]) or None, stop=stopping.is_set)
    until(lambda: _listeners() == 1, seconds=10)
    stopping.set()
    due.append("cpu")
    assert heard.result(10) == "cpu"


def test_one_whose_look_fails_listens_no_more(valkey, ears):
    """A database that is away: who rang it would wait for the top-up."""

    def look():
        raise RuntimeError("away")

    with pytest.raises(RuntimeError):
        ears("cpu", look=look).result(10)
    until(lambda: not rung("cpu"), seconds=10)
    heard = ears("cpu")  # and can again
    until(lambda: rung("cpu"), seconds=10)
    assert heard.result(10) == "cpu"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_broker_that_does_not_answer_is_told_and_holds_nobody(valkey, ears, number):
    heard = ears("cpu", seconds=0.2)
    assert heard.result(10) is None
    os.kill(valkey.pid, number)
    with pytest.raises((BrokerError, OSError)):
        ears("cpu").result(20)
    with pytest.raises((BrokerError, OSError)):
        dispatch.send("cpu", ring=True)


def test_a_broker_that_lets_nobody_ring_gets_messages(valkey, ears):
    """Its operator allows what Celery's queues need and no channels of ours."""
    bells = doorbell.Bells()
    bells.client.execute_command("ACL", "SETUSER", "default", "-publish", "-subscribe")
    dispatch.send("cpu", ring=True)
    assert bells.waiting("cpu") == 1
    with pytest.raises(BrokerError):
        ears("cpu").result(10)


def test_a_broker_without_bells_has_nobody_listening(ears):
    app.conf.broker_write_url = "memory://"
    try:
        assert not rung("cpu")
        with pytest.raises(BrokerError, match="no bells"):
            ears("cpu").result(10)
    finally:
        app.conf.broker_write_url = None


def test_one_who_listens_costs_no_message_and_many_messages_are_enough(valkey, ears, monkeypatch):
    heard = ears("cpu")
    until(lambda: _listeners() == 1, seconds=10)
    dispatch.send("cpu", ring=True)
    assert heard.result(10) == "cpu"
    bells = doorbell.Bells()
    assert bells.waiting("cpu") == 0
    monkeypatch.setattr(dispatch, "ENOUGH", 3)
    for _ in range(5):  # all slots are busy: nobody takes them
        dispatch.send("cpu", ring=True)
    assert bells.waiting("cpu") == 3


def _listeners() -> int:
    bells = doorbell.Bells()
    return bells.client.pubsub_numsub(bells.name("cpu"))[0][1]
