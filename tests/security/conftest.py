"""Ann has something of everything; Bob and Op come with keys."""

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from jobs import webhooks
from jobs.models import Upload
from tests.jobs.conftest import as_ann, as_bob, as_op, long_seconds, running, submit, succeeded  # noqa: F401 - fixtures


@pytest.fixture
def upload(ann):
    """upload() → an upload of Ann's."""

    def make(content_type: str = "video/mp4") -> Upload:
        key = default_storage.save(f"uploads/{Upload.objects.count()}", ContentFile(b"content"))
        return Upload.objects.create(
            owner=ann, name="ann-private", key=key, bytes=7, sha256="0" * 64, content_type=content_type
        )

    return make


@pytest.fixture
def webhook(ann):
    """The ids of a webhook of Ann's and of a message to it, by the names that addresses have for them."""
    endpoint, _ = webhooks.create(ann.pk, url="https://ann-private.example.com/")
    return {"webhook_id": str(endpoint.pk), "delivery_id": str(webhooks.send_test(endpoint).pk)}
