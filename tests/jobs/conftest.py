"""Fixtures for jobs that need no worker: Ann's jobs of the KITCHEN kind, claimed or not."""

import pytest

PARAMS = {
    "seconds": 0.0,
    "fail_times": 0,
    "code": "internal_error",
    "stall": False,
    "stubborn": False,
    "leak_child": False,
    "gobble": False,
    "price": 10,
    "output": True,
    "bytes": 0,
}


@pytest.fixture
def submit(ann):
    """submit(price=10, …) → a queued job of Ann's."""
    from jobs import lifecycle

    def make(owner=ann, *, key=None, body_hash="", max_attempts=None, priority=0, **params):
        job, _ = lifecycle.submit(
            owner.pk,
            "KITCHEN",
            PARAMS | params,
            key=key,
            body_hash=body_hash,
            max_attempts=max_attempts,
            priority=priority,
        )
        return job

    return make


@pytest.fixture
def running(submit):
    """running(failures=1) → the lease of a job of Ann's that has been claimed."""
    from jobs import lifecycle

    def make(failures: int = 0, max_attempts: int = 3, **params):
        submit(max_attempts=max_attempts, **params)
        lease = lifecycle.claim("cpu")
        if failures:
            lifecycle.Job.objects.filter(pk=lease.job_id).update(failures=failures)
        return lease

    return make
