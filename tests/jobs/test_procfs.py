"""Processes as /proc shows them, also while they end."""

import os
import subprocess
from pathlib import Path

import pytest

from jobs import procfs, slots


@pytest.fixture
def child():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_a_child_from_its_start_to_its_reaping(child):
    started = procfs.started(child.pid)
    assert started is not None and started >= procfs.started(os.getpid())
    assert (procfs.parent(child.pid), procfs.owner(child.pid)) == (os.getpid(), os.getuid())
    assert child.pid in procfs.pids() and child.pid in slots.children()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert procfs.started(child.pid) is None
    assert child.pid in slots.children(), "it is still to be reaped"
    child.wait()
    assert (procfs.stat(child.pid), procfs.parent(child.pid), procfs.owner(child.pid)) == ([], None, None)


@pytest.mark.parametrize("error", procfs.GONE)
def test_what_ends_under_a_walk_is_not_there(child, monkeypatch, error):
    """The kernel says the one or the other, by how far the end has come."""

    def gone(*_args, **_more):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", gone)
        patched.setattr(Path, "read_text", gone)
        found = slots.children(), procfs.owner(child.pid), procfs.started(child.pid)
    assert found == (set(), None, None)
