"""What Celery's signals do in a worker's processes."""

import errno
import os
import signal
from types import SimpleNamespace

import pytest
from django.conf import settings

from jobs import runner, tasks
from jobs.engines import own_user
from jobs.heartbeat import Heart

pytestmark = pytest.mark.django_db


@pytest.fixture
def heart(monkeypatch):
    """A heart of the test's own, that begins nothing."""
    quiet = Heart()
    monkeypatch.setattr(quiet, "_ensure_thread", lambda: None)
    monkeypatch.setattr(tasks, "heart", quiet)
    return quiet


def test_a_pool_child_that_ended_does_not_keep_the_others_from_handing_back(heart, monkeypatch):
    told = []

    def kill(pid, number):
        if pid == 1:
            raise ProcessLookupError
        told.append((pid, number))

    monkeypatch.setattr(tasks, "active_children", lambda: [SimpleNamespace(pid=pid) for pid in (1, 2, 3)])
    monkeypatch.setattr(os, "kill", kill)
    tasks._worker_shutting_down(sig="SIGTERM")
    assert heart.stopping and told == [(2, tasks.HAND_BACK), (3, tasks.HAND_BACK)]


def test_a_pool_child_has_its_heartbeat_whatever_its_sweep_meets(heart, monkeypatch):
    def broken():
        raise OSError

    monkeypatch.setattr(tasks, "_served_queues", ["cpu"])
    monkeypatch.setattr(runner, "sweep_work_folders", broken)
    with pytest.raises(OSError):
        tasks._pool_child_started()
    assert heart.queues == ["cpu"]


def test_a_pool_child_has_the_time_to_sweep_before_its_worker_gives_it_up():
    assert settings.CELERY_WORKER_PROC_ALIVE_TIMEOUT > 2 * own_user.KILL_SECONDS


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), RuntimeError("can't start new thread")]
)
def test_a_process_that_can_begin_no_run_ends_instead_of_taking_job_after_job(monkeypatch, error):
    """What it had claimed goes on once it is gone, not when its heartbeat has been missed for ten minutes."""
    killed = []

    def drain(queue, *, seconds):
        raise error

    monkeypatch.setattr(runner, "drain", drain)
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    with pytest.raises(type(error)):
        tasks.work("cpu")
    assert killed == [(os.getpid(), signal.SIGKILL)]
