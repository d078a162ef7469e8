"""What users brought."""

from django.contrib import admin

from jobs.models import Upload

from .base import ReadOnly, size, when


@admin.register(Upload)
class UploadAdmin(ReadOnly):
    """Uploaded files: whose, what, how large. The content stays its owner's."""

    list_display = ["id", "owner", "name", "content_type", "amount", "created"]
    list_select_related = ["owner"]
    ordering = ["-id"]
    search_fields = ["name", "owner__username"]
    fields = readonly_fields = ["id", "owner", "name", "content_type", "amount", "sha256", "created"]

    @admin.display(description="Size")
    def amount(self, upload: Upload) -> str:
        return size(upload.bytes)

    def created(self, upload: Upload) -> str:
        return when(upload.created_at)
