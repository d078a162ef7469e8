"""F35, S15: RunPod's webhook is a nudge. Twice, late, before the answer to /run, after a cancel or forged: no outcome
changes; the address is one request's alone."""

import threading
import time

import pytest
from django.conf import settings
from django.db import connections

from jobs import lifecycle, remote, runner
from jobs.models import Job, RemoteCall, Status
from tests.jobs.test_runpod_jobs import KEY as KEY
from tests.jobs.test_runpod_jobs import SMALL, balance
from tests.jobs.test_runpod_jobs import _configured as _configured
from tests.jobs.test_runpod_jobs import fake as fake
from tests.jobs.test_runpod_jobs import render as render
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _reachable(_configured, live_server, monkeypatch):
    """A poll every 25 s would be too late for these tests: what ends them sooner is the webhook."""
    monkeypatch.setitem(settings.JOBSITE, "RUNPOD_WEBHOOK", True)
    monkeypatch.setitem(settings.JOBSITE, "RUNPOD_POLL_SECONDS", 25.0)
    monkeypatch.setattr(settings, "SITE_URL", live_server.url)


def post(client, call: RemoteCall, secret: str | None = None) -> int:
    address = remote.webhook_url(call.pk) if secret is None else f"/api/runpod/{call.pk}/{secret}/"
    return client.post(
        address.removeprefix(settings.SITE_URL), b'{"status": "COMPLETED"}', "application/json"
    ).status_code


@pytest.mark.parametrize("fault", ["cold_start", "webhook_twice", "slow_answer"])
def test_the_job_ends_by_its_webhook(render, fake, ann, fault):
    """Cold: the first poll finds nothing. Slow: it comes before the answer to /run, when RunPod's id is not known."""
    fake.cold, fake.slow = 0.5, 3.0
    began = time.monotonic()
    job = render(f"A calm lake #{fault}")
    assert job.status == Status.SUCCEEDED, job.error_message
    assert time.monotonic() - began < 20
    assert balance(ann) == 999 and fake.calls("/run") == 1
    until(lambda: fake.hooks == [200] * (2 if fault == "webhook_twice" else 1))


def run_while(job: Job, act) -> None:
    """One attempt of the job, with `act` beside it in a thread."""

    def beside():
        try:
            act()
        finally:
            connections.close_all()

    lease = lifecycle.claim("remote")
    assert lease.job_id == job.pk
    thread = threading.Thread(target=beside)
    thread.start()
    runner.run(lease)
    thread.join()


def test_after_a_cancel_nothing_is_woken(ann, fake, client):
    fake.plan = {"stuck_queue": -1}
    job, _ = lifecycle.submit(ann.pk, "RENDER", SMALL, max_attempts=1)

    def cancel():
        until(lambda: RemoteCall.objects.filter(state="started").exists())
        lifecycle.cancel(job.pk, by="test")

    run_while(job, cancel)
    call = RemoteCall.objects.get()
    assert post(client, call) == 200
    call.refresh_from_db()
    assert (call.state, call.woken_at) == ("ended", None)
    assert Job.objects.get().status == Status.CANCELED and balance(ann) == 1000


def test_the_address_of_one_request_is_no_other_ones(ann, client):
    first, second = (remote.intend(job, 1, "runpod", 60.0) for job in _two_jobs(ann))
    rows = [RemoteCall.objects.get(pk=call.id) for call in (first, second)]
    stolen = remote.webhook_url(rows[0].pk).split("/")[-2]
    assert post(client, rows[1], stolen) == post(client, rows[1], "0" * 64) == 404
    assert not RemoteCall.objects.exclude(woken_at=None).exists()
    assert post(client, rows[0]) == 200  # the probe: the right one does wake
    assert [first.woken(), first.woken(), second.woken()] == [True, False, False]


def test_once_its_time_is_over_the_address_is_nobodys(ann, client):
    call = remote.intend(_two_jobs(ann)[0], 1, "runpod", -1.0)
    assert post(client, RemoteCall.objects.get(pk=call.id)) == 404


def test_a_forged_completion_only_makes_it_look(ann, fake, client):
    """The body says COMPLETED; RunPod says that it is still at work, and that counts."""
    fake.plan = {"stuck_work": -1}
    job, _ = lifecycle.submit(ann.pk, "RENDER", SMALL, max_attempts=1)

    def forge():
        until(lambda: fake.calls("/status") == 1)
        assert post(client, RemoteCall.objects.get()) == 200
        until(lambda: fake.calls("/status") == 2)
        lifecycle.cancel(job.pk, by="test")

    run_while(job, forge)
    assert Job.objects.get().status == Status.CANCELED


def _two_jobs(ann):
    return [lifecycle.submit(ann.pk, "RENDER", SMALL)[0].pk for _ in range(2)]
