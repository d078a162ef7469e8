"""Ann has something of everything; Bob and Op come with keys."""

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from jobs.models import Upload
from tests.jobs.conftest import as_ann, as_bob, as_op, running, submit, succeeded  # noqa: F401 - fixtures


@pytest.fixture
def upload(ann):
    """upload() → an upload of Ann's."""

    def make(content_type: str = "video/mp4") -> Upload:
        key = default_storage.save(f"uploads/{Upload.objects.count()}", ContentFile(b"content"))
        return Upload.objects.create(
            owner=ann, name="ann-private", key=key, bytes=7, sha256="0" * 64, content_type=content_type
        )

    return make
