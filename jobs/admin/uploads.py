"""What users brought, and what is still on its way in."""

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from jobs import parts, uploads
from jobs.errors import Refused
from jobs.models import PartUpload, Upload

from .base import ReadOnly, size, when

MOST = 100  # files in one action


@admin.register(Upload)
class UploadAdmin(ReadOnly):
    """Uploaded files: whose, what, how large. The content stays its owner's."""

    list_display = ["id", "owner", "name", "content_type", "amount", "created"]
    list_select_related = ["owner"]
    ordering = ["-id"]
    search_fields = ["name", "owner__username"]
    fields = readonly_fields = ["id", "owner", "name", "content_type", "amount", "sha256", "created"]
    actions = ["remove"]

    @admin.display(description="Size")
    def amount(self, upload: Upload) -> str:
        return size(upload.bytes)

    def created(self, upload: Upload) -> str:
        return when(upload.created_at)

    @admin.action(description="Delete those that no job needs", permissions=["operate"])
    def remove(self, request: HttpRequest, chosen: QuerySet[Upload]) -> None:
        removed, kept = 0, []
        for upload in chosen[:MOST]:
            try:
                uploads.remove(upload)
            except Refused as refused:
                kept.append(f"{upload.name}: {refused.detail}")
            else:
                self.log_deletions(request, [upload])
                removed += 1
        self.message_user(request, f"Deleted {removed} uploads.", messages.SUCCESS)
        if kept:
            self.message_user(request, f"Kept {len(kept)}: {'; '.join(kept[:10])}", messages.WARNING)


@admin.register(PartUpload)
class PartUploadAdmin(ReadOnly):
    """Large files that are being sent in parts to the bucket; the daily sweep gives up those that nobody finishes."""

    list_display = ["id", "owner", "name", "amount", "created"]
    list_select_related = ["owner"]
    ordering = ["-id"]
    search_fields = ["name", "owner__username"]
    fields = readonly_fields = ["id", "owner", "name", "amount", "sha256", "key", "created"]
    actions = ["give_up"]

    @admin.display(description="Announced size")
    def amount(self, begun: PartUpload) -> str:
        return size(begun.bytes)

    def created(self, begun: PartUpload) -> str:
        return when(begun.created_at)

    @admin.action(description="Give up: forget what was sent", permissions=["operate"])
    def give_up(self, request: HttpRequest, chosen: QuerySet[PartUpload]) -> None:
        given_up = 0
        for begun in chosen[:MOST]:
            if parts.give_up(begun):
                self.log_deletions(request, [begun])
                given_up += 1
        self.message_user(request, f"Gave up {given_up} uploads.", messages.SUCCESS)
