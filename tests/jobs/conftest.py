"""Fixtures for jobs that need no worker: Ann's jobs of the KITCHEN kind, claimed or not, and API clients."""

from concurrent.futures import Future

import pytest
from django.db import connection

from tests.clients import ApiClient

collect_ignore = [] if connection.vendor == "postgresql" else ["test_migrating_pg.py"]

PARAMS = {
    "seconds": 0.0,
    "fail_times": 0,
    "code": "internal_error",
    "stall": False,
    "stubborn": False,
    "leak_child": False,
    "leak_orphan": False,
    "gobble": False,
    "price": 10,
    "output": True,
    "bytes": 0,
}


@pytest.fixture
def submit(ann):
    """submit(price=10, …) → a queued job of Ann's."""
    from jobs import lifecycle

    def make(owner=ann, *, key=None, body_hash="", max_attempts=None, priority=0, deadline_seconds=None, **params):
        job, _ = lifecycle.submit(
            owner.pk,
            "KITCHEN",
            PARAMS | params,
            key=key,
            body_hash=body_hash,
            max_attempts=max_attempts,
            priority=priority,
            deadline_seconds=deadline_seconds,
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


@pytest.fixture
def succeeded(running, tmp_path):
    """succeeded(b"content", "dish.txt", "text/plain") → a SUCCEEDED job of Ann's with that output."""
    from jobs import artifacts, lifecycle

    def make(content: bytes = b"0123456789", name: str = "dish.txt", content_type: str = "text/plain"):
        lease = running()
        path = tmp_path / "made"
        path.write_bytes(content)
        sealed = Future()
        sealed.set_result(artifacts.seal(path))
        output = artifacts.Output(path, name, content_type, sealed)
        lifecycle.succeed(lease, artifacts.store(lease.job_id, lease.attempt, [output]))
        return lifecycle.Job.objects.get(pk=lease.job_id)

    return make


@pytest.fixture
def long_seconds(monkeypatch):
    """The second of SUBMITS_PER_SECOND lasts a minute: a slow machine's submits fall into one, too."""
    from jobs import queries

    real = queries.submitted_since
    monkeypatch.setattr(queries, "submitted_since", lambda owner, seconds, most: real(owner, 60 * seconds, most))


@pytest.fixture
def as_ann(ann):
    return ApiClient(ann)


@pytest.fixture
def as_bob(bob):
    return ApiClient(bob)


@pytest.fixture
def as_op(op):
    return ApiClient(op, scope="admin")
