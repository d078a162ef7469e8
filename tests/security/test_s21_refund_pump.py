"""S21: no order of cancels, retries, deletes and failures gives back more than was taken."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections
from django.db.models.functions import Now

from jobs import keys, lifecycle
from jobs.errors import ErrorCode, JobError, LeaseLost
from jobs.models import Job
from tests.clients import ApiClient
from tokens import ledger
from tokens.models import Account, Transaction

pytestmark = pytest.mark.django_db(transaction=True)


def client_of(secret: str) -> ApiClient:
    return ApiClient(headers={"Authorization": f"Bearer {secret}"})


def test_races_over_one_job_never_gain(ann):
    """Two threads throw the verbs at the same few jobs while a third plays the worker that fails them."""
    secret = keys.issue(ann, "test")[1]
    ids = [
        client_of(secret)
        .send("/api/jobs/", {"kind": "KITCHEN", "params": {"price": 10}, "max_attempts": 1})
        .json()["id"]
        for _ in range(4)
    ]
    over = threading.Event()

    def owner(seed: int) -> set[int]:
        chance, client, seen = random.Random(seed), client_of(secret), set()
        try:
            for _ in range(60):
                verb = chance.choice(
                    ["cancel", "retry", "retry", "retry", "get"] + ["delete"] * (chance.random() < 0.02)
                )
                job = chance.choice(ids)
                if verb == "delete":
                    answer = client.delete(f"/api/jobs/{job}/")
                elif verb == "get":
                    answer = client.get(f"/api/jobs/{job}/")
                else:
                    answer = client.send(f"/api/jobs/{job}/{verb}/")
                seen.add(answer.status_code)
            return seen
        finally:
            connections.close_all()

    def worker() -> int:
        failed = 0
        try:
            while not over.is_set():
                if lease := lifecycle.claim("cpu"):
                    try:
                        lifecycle.fail(lease, JobError(ErrorCode.ffmpeg_error))
                        failed += 1
                    except LeaseLost:
                        pass
                else:
                    over.wait(0.005)
            return failed
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as pool:
        working = pool.submit(worker)
        owners = [pool.submit(owner, seed) for seed in (1, 2)]
        try:
            seen = owners[0].result(60) | owners[1].result(60)
        finally:
            over.set()
        working.result(10)
    assert seen <= {200, 202, 204, 404, 409}
    balance = Account.objects.get(pk=ann.pk).balance
    assert balance <= 1000
    assert ledger.drifted() == []
    live = Job.objects.filter(finished_at=None).count()
    assert balance == 1000 - 10 * live  # nothing succeeded: what is not held by a live job is back
    for charge in Transaction.objects.filter(kind="CHARGE"):
        assert Transaction.objects.filter(reverses=charge).count() <= 1


def test_a_retry_of_a_refunded_job_is_paid_again(ann):
    client = client_of(keys.issue(ann, "test")[1])
    job = client.send("/api/jobs/", {"kind": "KITCHEN", "params": {"price": 600}, "max_attempts": 1}).json()["id"]
    lifecycle.fail(lifecycle.claim("cpu"), JobError(ErrorCode.ffmpeg_error))
    ledger.charge(ann.pk, 500, reference="spent elsewhere")
    answer = client.send(f"/api/jobs/{job}/retry/")
    assert (answer.status_code, answer.json()["code"]) == (402, "insufficient_tokens")
    assert Job.objects.get(pk=job).status == "FAILED"


def test_nothing_comes_back_after_the_result_was_there(ann):
    client = client_of(keys.issue(ann, "test")[1])
    job = client.send("/api/jobs/", {"kind": "KITCHEN", "params": {"price": 10}}).json()["id"]
    Job.objects.update(run_after=Now())
    lifecycle.succeed(lifecycle.claim("cpu"), [])
    assert client.send(f"/api/jobs/{job}/cancel/").status_code == 409
    assert client.send(f"/api/jobs/{job}/retry/").status_code == 409
    assert client.delete(f"/api/jobs/{job}/").status_code == 204
    assert Account.objects.get(pk=ann.pk).balance == 990
