"""S22: a key belongs to one user and one body; two at once make one job."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from jobs import keys, lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.models import Job
from tests.clients import ApiClient, codes
from tokens.models import Account

KITCHEN = {"kind": "KITCHEN", "params": {"price": 10}}


@pytest.mark.django_db
def test_bob_never_sees_anns_answer(as_ann, as_bob):
    ann = as_ann.send("/api/jobs/", KITCHEN, Idempotency_Key="shared")
    bob = as_bob.send("/api/jobs/", KITCHEN, Idempotency_Key="shared")
    assert (ann.status_code, bob.status_code) == (202, 202)
    assert ann.json()["id"] != bob.json()["id"]
    assert "Idempotent-Replayed" not in bob.headers


@pytest.mark.django_db
def test_another_body_is_refused_and_tells_nothing(as_ann):
    first = as_ann.send("/api/jobs/", KITCHEN, Idempotency_Key="k")
    other = as_ann.send("/api/jobs/", {**KITCHEN, "metadata": {"a": 1}}, Idempotency_Key="k")
    assert other.status_code == 422
    assert first.json()["id"] not in other.content.decode()
    assert Job.objects.count() == 1


@pytest.mark.django_db
def test_a_key_of_a_megabyte_is_refused(as_ann):
    answer = as_ann.send("/api/jobs/", KITCHEN, Idempotency_Key="k" * 1024**2)
    assert (answer.status_code, codes(answer)) == (400, {"Idempotency-Key": "invalid"})


@pytest.mark.django_db(transaction=True)
def test_many_at_once_make_one_job(ann):
    secret, together = keys.issue(ann, "test")[1], threading.Barrier(8)

    def submit(_) -> tuple[int, str]:
        client = ApiClient(headers={"Authorization": f"Bearer {secret}"})
        try:
            together.wait(10)
            answer = client.send("/api/jobs/", KITCHEN, Idempotency_Key="k")
            return answer.status_code, answer.json()["id"]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(8)))
    assert sorted(status for status, _ in answers) == [200] * 7 + [202]
    assert len({job for _, job in answers}) == 1
    assert Account.objects.get(pk=ann.pk).balance == 990


@pytest.mark.django_db
def test_a_retry_that_is_sent_twice_is_one(as_ann, ann):
    """Without the key the second one is charged, too, should the first round have failed meanwhile: the last lines."""

    def fail() -> str:
        lease = lifecycle.claim("cpu")
        lifecycle.fail(lease, JobError(ErrorCode.bad_input))
        return f"/api/jobs/{lease.job_id}/retry/"

    as_ann.send("/api/jobs/", {**KITCHEN, "max_attempts": 1})
    path = fail()
    first = as_ann.send(path, Idempotency_Key="again")
    assert (first.status_code, first.json()["status"]) == (202, "QUEUED")
    assert "Idempotent-Replayed" not in first.headers
    assert fail() == path
    second = as_ann.send(path, Idempotency_Key="again")
    assert (second.status_code, second.json()["status"]) == (200, "FAILED")
    assert second.headers["Idempotent-Replayed"] == "true"
    assert Account.objects.get(user=ann).balance == 1000
    other = as_ann.send(path.replace("/retry/", "/retry"), Idempotency_Key="another")
    assert other.status_code == 202
    assert Account.objects.get(user=ann).balance == 990


@pytest.mark.django_db
def test_a_retrys_key_is_for_that_retry_alone(as_ann, as_op, running):
    lease = running(max_attempts=1)
    lifecycle.fail(lease, JobError(ErrorCode.bad_input))
    path = f"/api/jobs/{lease.job_id}/retry/"
    as_ann.send("/api/jobs/", KITCHEN, Idempotency_Key="k")
    assert as_ann.send(path, Idempotency_Key="k").status_code == 422
    assert as_ann.send(path, Idempotency_Key="").status_code == 400
    assert as_op.send(path, Idempotency_Key="k").status_code == 202  # a key is one user's
    assert as_ann.send("/api/jobs/", KITCHEN, Idempotency_Key="k").status_code == 200
