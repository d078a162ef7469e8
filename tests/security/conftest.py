"""Ann has something of everything; Bob and Op come with keys."""

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from jobs import lifecycle
from jobs.artifacts import Output, store
from jobs.models import Upload
from tests.clients import ApiClient
from tests.jobs.conftest import running, submit  # noqa: F401 - fixtures


@pytest.fixture
def as_ann(ann):
    return ApiClient(ann)


@pytest.fixture
def as_bob(bob):
    return ApiClient(bob)


@pytest.fixture
def succeeded(running, tmp_path):  # noqa: F811
    """succeeded("x.html", "text/html", b"…") → a SUCCEEDED job of Ann's with that output."""

    def make(name: str = "dish.txt", content_type: str = "text/plain", content: bytes = b"secret of Ann's"):
        lease = running()
        path = tmp_path / "made"
        path.write_bytes(content)
        lifecycle.succeed(lease, store(lease.job_id, lease.attempt, [Output(path, name, content_type)]))
        return lifecycle.Job.objects.get(pk=lease.job_id)

    return make


@pytest.fixture
def upload(ann):
    """upload() → an upload of Ann's."""

    def make(content_type: str = "video/mp4") -> Upload:
        key = default_storage.save(f"uploads/{Upload.objects.count()}", ContentFile(b"content"))
        return Upload.objects.create(
            owner=ann, name="ann-private", key=key, bytes=7, sha256="0" * 64, content_type=content_type
        )

    return make
