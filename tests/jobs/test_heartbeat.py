"""What a pool child's heartbeat does to processes."""

import os
import signal
import time

import pytest

from jobs import dispatch
from jobs.heartbeat import Heart
from jobs.models import Slot


@pytest.mark.parametrize("parent", [os.getppid(), 1])
def test_a_deaf_child_ends_its_worker_and_nobody_else(monkeypatch, settings, parent):
    """Its worker may be gone by then, and the host's init, or a session's, its parent."""
    killed = []
    heart = Heart()
    heart.queues, heart.slot = ["cpu"], Slot(parent_pid=os.getppid())
    monkeypatch.setattr(dispatch, "overdue", lambda queue, limit: True)
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    worker = [(os.getppid(), signal.SIGKILL)] if parent == os.getppid() else []
    monkeypatch.setattr(os, "getppid", lambda: parent)
    heart._end_if_deaf(time.monotonic() - settings.JOBSITE["DEAF_SECONDS"] - 1)
    assert killed == [*worker, (os.getpid(), signal.SIGKILL)]
