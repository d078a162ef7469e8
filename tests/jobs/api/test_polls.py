"""What a poll says of time: when to look again, and how long it may take."""

from datetime import timedelta
from functools import partial

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from jobs import lifecycle
from jobs.models import Job, Slot

pytestmark = pytest.mark.django_db


def ages(job_id, **seconds: float) -> None:
    """What a job's times look like so many seconds from now."""
    times = {name: timezone.now() - timedelta(seconds=age) for name, age in seconds.items()}
    Job.objects.filter(pk=job_id).update(**times)


@pytest.mark.parametrize(("age", "pause"), [(0, "1"), (14, "1"), (42, "4"), (3600, "10")])
def test_a_live_job_says_when_to_look_again(as_ann, running, submit, age, pause):
    lease, waiting = running(), submit().pk
    ages(lease.job_id, started_at=age)
    ages(waiting, run_after=age)
    for job_id in (lease.job_id, waiting):
        answer = as_ann.get(f"/api/jobs/{job_id}/")
        assert answer.headers["Retry-After"] == pause
        again = as_ann.get(f"/api/jobs/{job_id}/", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.headers["Retry-After"]) == (304, pause)


def test_a_job_that_may_not_start_yet_is_looked_at_when_it_may(as_ann, submit):
    job_id = submit().pk
    ages(job_id, run_after=-6)
    assert as_ann.get(f"/api/jobs/{job_id}/").headers["Retry-After"] in ("6", "5", "4", "3")  # however slow we are


def test_an_ended_job_need_not_be_looked_at_again(as_ann, succeeded):
    assert "Retry-After" not in as_ann.get(f"/api/jobs/{succeeded().pk}/").headers


def test_the_time_left_is_what_jobs_like_it_took(submit, as_ann):
    worker = Slot.objects.create(host="h", boot_id="b", pid=1, process_started=1, queues=["cpu"])
    for _ in range(5):
        submit()
        lease = lifecycle.claim("cpu", worker.pk)
        Job.objects.filter(pk=lease.job_id).update(started_at=Now() - timedelta(seconds=40))
        lifecycle.succeed(lease, [])
    job = submit()
    assert as_ann.get(f"/api/jobs/{job.pk}/").json()["eta_seconds"] == pytest.approx(40, abs=10)
    assert as_ann.get("/api/jobs/").json()["results"][0]["eta_seconds"] is None


def test_the_time_left_of_what_takes_longer_than_those_is_by_its_own_speed(running, as_ann):
    for _ in range(3):
        lifecycle.succeed(running(), [])
    lease = running()
    ages(lease.job_id, started_at=30)
    left = partial(as_ann.get, f"/api/jobs/{lease.job_id}/")
    assert left().json()["eta_seconds"] is None  # nothing to go by
    lifecycle.beat(lease, progress=0.05, stage="cooking")
    assert left().json()["eta_seconds"] == pytest.approx(30 / 0.05 - 30, abs=150)
