"""Processes as /proc shows them, also while they end."""

import os
import subprocess
import sys
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
        patched.setattr(Path, "read_bytes", gone)
        found = slots.children(), procfs.owner(child.pid), procfs.started(child.pid)
    assert found == (set(), None, None)


def test_what_the_host_hides_from_us_is_not_there(child, monkeypatch):
    """/proc may be mounted with hidepid=noaccess; systemd's ProtectProc does it."""

    def hidden(*_args):
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", hidden)
        assert (procfs.started(child.pid), slots.children()) == (None, set())


@pytest.mark.parametrize("name", ["программа", "a) R 1 (b"])
def test_a_process_may_have_any_name(name):
    """The kernel keeps 15 bytes of it, which may end within a letter: one such process broke every walk."""
    named = f"import ctypes, time; ctypes.CDLL(None).prctl(15, {name.encode()!r}); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", named], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            assert Path(f"/proc/{process.pid}/comm").read_bytes().rstrip(b"\n") == name.encode()[:15]
            assert process.pid in slots.children()
            assert procfs.started(process.pid) >= procfs.started(os.getpid())
        finally:
            process.kill()
