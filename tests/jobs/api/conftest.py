"""Ann, Bob and Op with keys, and jobs in every state."""

import pytest

from jobs import lifecycle
from jobs.artifacts import Output, store
from tests.clients import ApiClient


@pytest.fixture
def as_ann(ann):
    return ApiClient(ann)


@pytest.fixture
def as_bob(bob):
    return ApiClient(bob)


@pytest.fixture
def as_op(op):
    return ApiClient(op, scope="admin")


@pytest.fixture
def succeeded(running, tmp_path):
    """succeeded(b"content", name="dish.txt", content_type="text/plain") → a SUCCEEDED job of Ann's with that output."""

    def make(content: bytes = b"0123456789", name: str = "dish.txt", content_type: str = "text/plain"):
        lease = running()
        path = tmp_path / "made"
        path.write_bytes(content)
        lifecycle.succeed(lease, store(lease.job_id, lease.attempt, [Output(path, name, content_type)]))
        return lifecycle.Job.objects.get(pk=lease.job_id)

    return make
