"""Slots that listen for nudges past Celery: what becomes of them, and of jobs, when they freeze or a worker ends."""

import os
import signal

from jobs import procfs
from jobs.models import Slot, Status
from tests.faults.rig import Platform, at_rest, cook, final, freeze, fresh
from tests.waiting import until


def listening(platform: Platform) -> int:
    """How many slots listen for jobs of the queue cpu."""
    (_, count) = platform.valkey("PUBSUB", "NUMSUB", "/0.jobsite.cpu")
    return count


def commands(platform: Platform, name: str) -> int:
    """How often the broker was given a command."""
    return platform.valkey("INFO", "commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"]


def pid_of(job) -> int:
    return Slot.objects.get(pk=fresh(job).slot_id).pid


def test_the_next_job_goes_past_celery(platform, ann):
    platform.broker()
    worker = platform.worker(slots=1)
    final(cook(ann))
    until(lambda: listening(platform), seconds=20)
    platform.kill("worker", signal.SIGSTOP)  # its main process alone, which receives the messages
    (job,) = final(cook(ann))
    assert job.status == Status.SUCCEEDED
    platform.kill("worker", signal.SIGCONT)
    until(lambda: listening(platform), seconds=20)
    worker.terminate()
    assert worker.wait(10) == 0  # it is not kept from its end
    at_rest()


def test_an_idle_platform_goes_on_listening(platform, ann):
    platform.env["JOB_LINGER_SECONDS"] = "0.5"
    platform.broker()
    platform.worker(slots=2)
    final(cook(ann))
    taken = commands(platform, "subscribe")
    until(lambda: commands(platform, "subscribe") >= taken + 4, seconds=30)  # half a second each
    until(lambda: listening(platform), seconds=20)
    (job,) = final(cook(ann))
    assert job.status == Status.SUCCEEDED
    at_rest()


def test_one_that_is_frozen_while_it_listens_keeps_jobs_from_no_other(platform, ann):
    """It hears every ring and does nothing; the top-up sends messages."""
    platform.up()
    (first,) = final(cook(ann))
    until(lambda: listening(platform), seconds=20)
    freeze(frozen := pid_of(first))
    (second,) = final(cook(ann))
    assert second.status == Status.SUCCEEDED and pid_of(second) != frozen
    os.kill(frozen, signal.SIGCONT)
    final(cook(ann), cook(ann))
    at_rest()


def test_one_that_listens_ends_when_its_worker_is_killed(platform, ann):
    platform.broker()
    platform.worker(slots=1)
    (job,) = final(cook(ann))
    until(lambda: listening(platform), seconds=20)
    platform.kill("worker")
    until(lambda: procfs.started(pid_of(job)) is None, seconds=20)
    until(lambda: not listening(platform), seconds=10)
    platform.worker("second", slots=1)
    platform.beat()
    final(cook(ann))
    at_rest()
