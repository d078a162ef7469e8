"""F33, F36: workers killed around a request to RunPod, and cancels that RunPod does not take; with live processes."""

import pytest
from django.conf import settings

from jobs import lifecycle, remote
from jobs.engines.fake_runpod import FakeRunpod
from jobs.models import RemoteCall, Status
from tests.faults.rig import T, balance, final, fresh, is_running, render, until

KEY = "canary-e2f0c7"


@pytest.fixture
def fake(platform, monkeypatch):
    """The fake RunPod in this process; the platform's processes are led to it."""
    monkeypatch.setattr(settings, "JOBSITE", settings.JOBSITE | {"RENDER_ENGINE": "runpod"})  # submit picks the queue
    with FakeRunpod(key=KEY) as running:
        platform.env |= {
            "RENDER_ENGINE": "runpod",
            "RUNPOD_API_KEY": KEY,
            "RUNPOD_ENDPOINT_ID": "rehearsal",
            "RUNPOD_BASE_URL": running.base_url,
            "RUNPOD_POLL_SECONDS": "0.1",
            "RUNPOD_SWEEP_SECONDS": "0.4",
        }
        yield running


def test_killed_between_the_request_and_its_answer(platform, fake, ann):
    """F33: the next attempt finds the job by our id in RunPod's list; RunPod has drawn once, Ann paid once."""
    platform.broker()
    platform.worker(queues="remote", slots=1, faults="submit_remote.after_send=kill")
    platform.beat()
    job = render(ann, seconds=1)
    (done,) = final(job, seconds=60)
    assert platform.passed("submit_remote.after_send")
    assert (done.status, done.attempt) == (Status.SUCCEEDED, 2), done.error_message
    assert len(fake.jobs) == fake.calls("/run") == 1
    call = RemoteCall.objects.get()
    assert (call.attempt, call.outcome) == (2, "COMPLETED")
    assert balance(ann) == 1000 - job.price


def test_killed_while_it_waits_and_a_cancel_that_fails_five_times(platform, fake, ann):
    """A killed worker's request goes on under the next one; F36: CANCELED for Ann at once, RunPod is asked on."""
    platform.broker()
    platform.worker(queues="remote", slots=1)
    platform.beat()
    job = render(ann, prompt="#stuck_work #cancel_broken:5", seconds=1)
    until(lambda: is_running(job)() and RemoteCall.objects.filter(state="started").exists(), seconds=30)
    platform.kill("worker")
    platform.worker("second", queues="remote", slots=1)
    until(lambda: RemoteCall.objects.filter(attempt=2, state="started").exists(), seconds=T + 40)
    (known,) = fake.jobs.values()
    assert known.status == "IN_PROGRESS"
    assert not remote.strays()
    assert lifecycle.cancel(job.pk, by="test").status == Status.CANCELED
    until(lambda: remote.strays(), seconds=20)
    until(lambda: known.status == "CANCELLED", seconds=30)
    until(lambda: RemoteCall.objects.get().state == "ended", seconds=20)
    assert fake.calls("/cancel") == 6
    assert RemoteCall.objects.get().cancel_tries == 5  # the first was the run's own
    assert fresh(job).status == Status.CANCELED
    assert balance(ann) == 1000
    assert KEY not in "".join(platform.log(name) for name in platform.logs)
