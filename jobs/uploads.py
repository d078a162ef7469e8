"""Files that users bring: taken in, and swept when nothing uses them."""

from datetime import timedelta

from django.conf import settings
from django.core.files.storage import default_storage
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from .models import JobInput, Upload


def sweep_unused() -> int:
    """Delete uploads older than UPLOAD_UNUSED_HOURS that no job uses, row first. Returns how many."""
    old = Now() - timedelta(hours=settings.JOBSITE["UPLOAD_UNUSED_HOURS"])
    unused = Upload.objects.filter(~Exists(JobInput.objects.filter(upload=OuterRef("pk"))), created_at__lt=old)
    gone = 0
    for upload in unused:
        upload.delete()
        default_storage.delete(upload.key)
        gone += 1
    return gone
