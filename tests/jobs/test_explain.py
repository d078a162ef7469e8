"""Every state is explained in words; the sentences about money come from the ledger."""

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from jobs import lifecycle, pauses
from jobs.errors import ErrorCode, JobError
from jobs.explain import explain
from jobs.models import Job, Slot

pytestmark = pytest.mark.django_db


@pytest.fixture
def worker(db):
    """worker("cpu", host="render1") → the slot of a beating pool child."""

    def make(*queues: str, host: str = "render1") -> Slot:
        return Slot.objects.create(
            host=host, boot_id="b", pid=Slot.objects.count() + 1, process_started=1, queues=queues
        )

    return make


def now(job_id, *, for_operator=False) -> str:
    return " ".join(explain(Job.objects.get(pk=job_id), for_operator=for_operator).now)


def test_it_waits_for_a_worker_to_start(submit):
    job = submit()
    assert "No worker serves the queue cpu at the moment." in now(job.pk)
    assert "start one with -Q cpu" in now(job.pk, for_operator=True)
    assert "10 tokens charged. If it is cancelled, everything comes back." in now(job.pk)


def test_it_waits_behind_others(submit, worker):
    worker("cpu")
    first, second = submit(), submit()
    Job.objects.filter(pk=first.pk).update(run_after=Now() - timedelta(seconds=9))
    assert "number 2 in the queue cpu; 0 of 1 slots are busy" in now(second.pk)


def test_it_waits_since_the_queue_is_paused(submit, worker):
    worker("cpu")
    job = submit()
    pauses.pause("cpu", reason="New disk.", by="test")
    assert "the operator paused the queue cpu: New disk." in now(job.pk)


def test_it_waits_for_its_next_attempt(running):
    lease = running()
    lifecycle.fail(lease, JobError(ErrorCode.provider_error, "The provider is away.", postpone=100.0))
    said = now(lease.job_id)
    assert "Attempt 1 ended: The provider is away." in said
    assert "3 of 3 attempts are left" in said and "It may start in" in said


def test_it_runs_and_where(submit, worker):
    slot = worker("cpu")
    submit(max_attempts=1)
    lease = lifecycle.claim("cpu", slot.pk)
    lifecycle.beat(lease, progress=0.25, stage="cooking")
    assert "cooking, 25 %, its one attempt" in now(lease.job_id)
    assert "on render1" in now(lease.job_id, for_operator=True) and "render1" not in now(lease.job_id)


def test_what_was_handed_back_is_an_attempt_but_no_failure(running, worker):
    lifecycle.fail(running(), JobError(ErrorCode.worker_shutdown))
    Job.objects.update(run_after=Now())
    assert "attempt 2, 0 of at most 3 failed" in now(lifecycle.claim("cpu", worker("cpu").pk).job_id)


def test_it_runs_but_its_worker_is_silent(running):
    lease = running()
    Job.objects.update(heartbeat_at=Now() - timedelta(seconds=100))
    assert "Its worker has said nothing for 100 s; after 5 min the cleanup ends the attempt." in now(lease.job_id)


def test_what_the_stages_of_an_attempt_took(running):
    lease = running()
    lifecycle.fail(lease, JobError(ErrorCode.worker_timeout), stages=[("claimed", 0.1), ("cooking", 42.0)])
    told = explain(Job.objects.get(pk=lease.job_id), for_operator=False).timeline[-1]
    assert told.detail.endswith(" Stages: claimed 0.1 s, cooking 42 s.")


def test_it_failed_and_its_tokens_are_back(running):
    lease = running()
    lifecycle.fail(lease, JobError(ErrorCode.ffmpeg_error, "clip-1 has no picture."))
    said = now(lease.job_id)
    assert "clip-1 has no picture." in said and ErrorCode.ffmpeg_error.row.advice in said
    assert "not tried again" in said and "10 tokens charged, 10 tokens back: it cost 0 tokens." in said


def test_what_a_job_costs_is_not_told_before_its_last_round_has_ended(running):
    lease = running()
    lifecycle.fail(lease, JobError(ErrorCode.ffmpeg_error))
    lifecycle.retry(lease.job_id, by="test")
    assert "20 tokens charged, 10 tokens back so far. If it is cancelled, everything comes back." in now(lease.job_id)
    lifecycle.claim("cpu")
    assert "everything comes back (now 10 tokens)." in now(lease.job_id)


def test_a_cancel_that_gives_a_part_back_says_by_which_rule(running, ann):
    lease = running()
    Job.objects.update(cancel_refund="unused", progress=0.3)
    assert "the part not yet worked for comes back (now 7 tokens)" in now(lease.job_id)
    lifecycle.cancel(lease.job_id, by=f"user:{ann.pk}")
    told = explain(Job.objects.get(), for_operator=False)
    assert [(line.title, line.tokens) for line in told.money] == [("Charged", -10), ("Refunded", 7)]
    assert "Its rule for a cancel while it runs: the part not yet worked for comes back." in told.money[1].detail
    assert "it cost 3 tokens" in told.now[-1]


def test_the_timeline_tells_each_one_who_did_what(running, ann, op):
    lease = running()
    lifecycle.fail(lease, JobError(ErrorCode.ffmpeg_error))
    lifecycle.retry(lease.job_id, by=f"user:{op.pk}")
    job = Job.objects.get()
    told = [(line.title, line.by, line.tokens) for line in explain(job, for_operator=False).timeline]
    assert told == [
        ("Submitted", "you", -10),
        ("Attempt 1 started", "the worker", 0),
        ("Failed", "the worker", 10),
        ("Retried: round 2", "the operator", -10),
    ]
    by_name = [line.by for line in explain(job, for_operator=True).timeline]
    assert (by_name[0], by_name[3]) == (ann.username, op.username)
    assert [line.tokens for line in explain(job, for_operator=False).money] == [-10, 10, -10]


def test_a_free_job_was_not_charged(submit):
    assert "It was not charged." in now(submit(price=0).pk)


def test_it_reads_as_much_for_many_events_as_for_few(running):
    def statements():
        with CaptureQueriesContext(connection) as seen:
            explain(Job.objects.get(), for_operator=True)
        return len(seen)

    lease = running()
    lifecycle.fail(lease, JobError(ErrorCode.ffmpeg_error))
    few = statements()
    for _ in range(3):
        lifecycle.retry(lease.job_id, by="user:1")
        lifecycle.fail(lifecycle.claim("cpu"), JobError(ErrorCode.ffmpeg_error))
    assert statements() == few <= 4


def test_the_api_tells_the_owner_and_nobody_else(submit, as_ann, as_bob, as_op):
    job = submit()
    told = as_ann.get(f"/api/jobs/{job.pk}/explain/").json()
    assert told["now"] and told["timeline"][0]["by"] == "you" and told["money"][0]["tokens"] == -10
    assert as_bob.get(f"/api/jobs/{job.pk}/explain/").status_code == 404
    assert as_op.get(f"/api/jobs/{job.pk}/explain/").json()["timeline"][0]["by"] == "ann"
