"""Requests to RunPod as rows: one waited for per job, taken over by the next attempt, swept when nobody waits."""

import uuid
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import IntegrityError
from django.db.models.functions import Now
from django.urls import reverse

from jobs import lifecycle, remote
from jobs.engines import remote_worker, runpod_api
from jobs.engines.fake_runpod import FakeRunpod
from jobs.errors import ErrorCode, JobError
from jobs.models import RemoteCall, RemoteState, Status

pytestmark = pytest.mark.django_db
KEY = "canary-77e1"


@pytest.fixture
def fake(settings, monkeypatch):
    """The fake RunPod, and the settings that lead to it; its jobs never leave the queue."""
    monkeypatch.setattr(remote_worker, "work", lambda *_, **__: None)
    with FakeRunpod(key=KEY) as running:
        running.plan = {"stuck_queue": -1}
        settings.JOBSITE = settings.JOBSITE | {
            "RUNPOD_API_KEY": KEY,
            "RUNPOD_ENDPOINT_ID": "rehearsal",
            "RUNPOD_BASE_URL": running.base_url,
        }
        yield running


@pytest.fixture
def call(running):
    """call() → (lease, call) of a running job of Ann's."""

    def make(**options):
        lease = running(**options)
        return lease, remote.intend(lease.job_id, lease.attempt, "runpod", 600)

    return make


def sent(fake, call):
    """A job on RunPod as the engine would have sent it."""
    return fake.take({"input": {"call_id": call.id}}, {})


def row(call) -> RemoteCall:
    return RemoteCall.objects.get(pk=call.id)


def end(lease, code=ErrorCode.ffmpeg_error):
    return lifecycle.fail(lease, JobError(code))


def test_a_requests_life(call):
    _, first = call()
    assert (row(first).state, first.resumed, first.remote_id) == (RemoteState.INTENDED, False, "")
    first.started("abc-u1")
    assert (row(first).state, row(first).remote_id) == (RemoteState.STARTED, "abc-u1")
    first.ended("COMPLETED")
    first.ended("FAILED")
    assert not first.give_up()
    assert (row(first).state, row(first).outcome) == (RemoteState.ENDED, "COMPLETED"), "the first end stays"


def test_the_next_attempt_takes_it_over_and_the_old_one_can_do_nothing(call):
    lease, first = call()
    first.started("abc-u1")
    second = remote.intend(lease.job_id, lease.attempt + 1, "runpod", 600)
    assert (second.id, second.remote_id, second.resumed) == (first.id, "abc-u1", True)
    assert not first.give_up()
    first.ended("COMPLETED")
    assert (row(second).state, row(second).attempt) == (RemoteState.STARTED, 2)
    assert second.give_up()


def test_what_is_over_or_to_be_cancelled_is_not_taken_over(call):
    lease, first = call()
    first.give_up()
    second = remote.intend(lease.job_id, 2, "runpod", 600)
    second.ended("FAILED")
    third = remote.intend(lease.job_id, 3, "runpod", 600)
    assert len({first.id, second.id, third.id}) == 3
    assert not third.resumed


def test_an_older_attempt_gets_none_beside_a_later_ones(call):
    lease, _ = call()
    remote.intend(lease.job_id, 5, "runpod", 600)
    with pytest.raises(IntegrityError):
        remote.intend(lease.job_id, 4, "runpod", 600)


def test_an_id_that_comes_after_the_sweep_gave_up_is_kept_for_it(call):
    _, first = call()
    first.give_up()
    first.started("late-u1")
    assert (row(first).state, row(first).remote_id) == (RemoteState.CANCEL_WANTED, "late-u1")


def test_what_is_waited_for_is_left_alone(call, fake):
    lease, first = call()
    first.started(sent(fake, first).id)
    assert vars(remote.sweep()) == {"ended": 0, "left": 0}
    end(lease, ErrorCode.worker_lost)
    assert lifecycle.Job.objects.get(pk=lease.job_id).status == Status.RETRY
    assert vars(remote.sweep()) == {"ended": 0, "left": 0}, "the next attempt takes it over"
    assert not fake.calls("/cancel")


@pytest.mark.parametrize("ended", ["failed", "cancelled", "deleted"])
@pytest.mark.parametrize("known", [True, False])
def test_what_nobody_waits_for_is_cancelled(call, fake, ended, known):
    lease, first = call()
    job = sent(fake, first)
    if known:
        first.started(job.id)
    if ended == "failed":
        end(lease)
    elif ended == "cancelled":
        lifecycle.cancel(lease.job_id, by="test")
    else:
        lifecycle.delete(lease.job_id, by="test")
    assert [stray.pk for stray in remote.strays()] == [uuid.UUID(first.id)]
    assert vars(remote.sweep()) == {"ended": 1, "left": 0}
    assert job.status == "CANCELLED"
    assert (row(first).state, row(first).outcome, row(first).remote_id) == ("ended", "CANCELLED", job.id)
    assert not remote.strays()


def test_a_cancel_whose_answer_is_nonsense_stops_no_other(call, fake, monkeypatch):
    for _ in range(2):
        lease, mine = call()
        mine.started(sent(fake, mine).id)
        end(lease)
    monkeypatch.setattr(runpod_api.Client, "_ask", lambda *_, **__: {"status": {"of": ["what"]}})
    assert remote.sweep() == remote.Swept(ended=0, left=2)
    assert {stray.error for stray in remote.strays()} == {"RunPod did not say that it was cancelled"}


def test_a_sweep_leaves_the_rest_once_its_time_is_over_and_goes_on_with_the_next(call, fake, monkeypatch):
    """One that hangs costs 10 s; fifty of them would keep all watchmen from their turns."""
    monkeypatch.setattr(remote, "SWEEP_SECONDS", 0.0)
    fake.plan |= {"cancel_broken": 1}
    for _ in range(3):
        lease, mine = call()
        mine.started(sent(fake, mine).id)
        end(lease)
    assert [vars(remote.sweep()) for _ in range(4)] == [
        {"ended": 0, "left": 3},
        {"ended": 1, "left": 2},
        {"ended": 1, "left": 1},
        {"ended": 1, "left": 0},
    ]
    assert fake.calls("/cancel") == 4


def test_a_cancel_that_fails_five_times_is_tried_a_sixth(call, fake):
    """F36: the user's job is CANCELED at once; the stray is listed until it is gone."""
    lease, first = call()
    job = sent(fake, first)
    first.started(job.id)
    assert lifecycle.cancel(lease.job_id, by="test").status == Status.CANCELED
    fake.plan |= {"cancel_broken": 5}
    for tries in range(1, 6):
        assert vars(remote.sweep()) == {"ended": 0, "left": 1}
        (stray,) = remote.strays()
        assert (stray.cancel_tries, stray.error) == (tries, "RunPod answered 500")
    assert vars(remote.sweep()) == {"ended": 1, "left": 0}
    assert job.status == "CANCELLED"


@pytest.mark.parametrize("list_fault", [{}, {"no_list": -1}, {"blind_list": -1}])
def test_a_lost_request_is_looked_for_until_its_own_limit(call, fake, list_fault):
    lease, first = call()
    if list_fault:
        sent(fake, first)
    fake.plan |= list_fault
    end(lease)
    assert remote.sweep().left == 1
    assert row(first).error
    RemoteCall.objects.update(ends_at=Now() - timedelta(seconds=1))
    assert vars(remote.sweep()) == {"ended": 1, "left": 0}
    assert row(first).outcome == "expired"


def test_a_job_that_runpod_forgot_is_over(call, fake):
    lease, first = call()
    first.started("unknown-u1")
    end(lease)
    assert remote.sweep().ended == 1
    assert row(first).outcome == "gone"


def test_without_a_key_strays_stay_and_say_why(call, fake, settings):
    lease, first = call()
    end(lease)
    settings.JOBSITE = settings.JOBSITE | {"RUNPOD_API_KEY": ""}
    assert vars(remote.sweep()) == {"ended": 0, "left": 1}
    assert row(first).error.startswith("RunPod is not configured")


def test_old_rows_go(call):
    _, first = call()
    first.ended("COMPLETED")
    remote.sweep()
    assert RemoteCall.objects.count() == 1
    RemoteCall.objects.update(ends_at=Now() - timedelta(days=31))
    remote.sweep()
    assert RemoteCall.objects.count() == 0


def test_no_key_in_rows_or_logs(call, fake, caplog):
    lease, first = call()
    first.started(sent(fake, first).id)
    end(lease)
    fake.plan |= {"unauthorized": -1}
    remote.sweep()
    assert row(first).error == "RunPod does not accept the API key"
    assert KEY not in caplog.text


def test_the_command_lists_strays_and_cancels_them(call, fake, capsys):
    lease, first = call()
    job = sent(fake, first)
    first.started(job.id)
    end(lease)
    with pytest.raises(SystemExit):
        call_command("remote_calls")
    listed = capsys.readouterr().out
    assert job.id in listed and str(lease.job_id) in listed and "strays: 1" in listed
    call_command("remote_calls", sweep=True)
    assert capsys.readouterr().out == "ended: 1\nstrays: 0\n"


def test_the_admin_shows_them(call, client, op):
    lease, first = call()
    first.started("abc-u1")
    first.give_up()
    client.force_login(op)
    for page in (reverse("admin:jobs_remotecall_changelist") + "?state=cancel_wanted", change_page(first)):
        shown = client.get(page).content.decode()
        assert "abc-u1" in shown and str(lease.job_id) in shown and "cancel_wanted" in shown


def change_page(call) -> str:
    return reverse("admin:jobs_remotecall_change", args=[call.id])
