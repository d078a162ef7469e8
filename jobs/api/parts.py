"""Bring large files in parts, straight into the bucket: two requests to here, the bytes go to signed addresses."""

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from .. import intake, parts
from .base import StrictSerializer, View, url
from .parsers import TooLarge
from .uploads import UploadObject, represent


class PartUploadForm(StrictSerializer):
    """The file that is to come. `sha256` is compared if it is given."""

    name = serializers.CharField(max_length=1000)
    bytes = serializers.IntegerField(min_value=1)
    sha256 = serializers.RegexField(r"^[0-9a-f]{64}\Z", required=False)


class PartUploadObject(serializers.Serializer):
    """PUT the file in parts of `part_size` bytes, the last one shorter, each to its address, and keep each answer's
    ETag for `complete`. The addresses want no key."""

    id = serializers.UUIDField()
    part_size = serializers.IntegerField()
    urls = serializers.ListField(child=serializers.URLField())
    expires_at = serializers.DateTimeField()
    complete = serializers.URLField()


class CompleteForm(StrictSerializer):
    parts = serializers.ListField(
        child=serializers.CharField(max_length=200), min_length=1, max_length=parts.MOST_PARTS, help_text="ETags."
    )


class PartUploads(View):
    """Announce a file that is to come in parts."""

    @extend_schema(operation_id="uploads_multipart", request=PartUploadForm, responses={201: PartUploadObject})
    def post(self, request):
        """Begin an upload in parts; 409 where the storage is no bucket. Not completed in 24 hours, it is given up."""
        wanted = PartUploadForm(data=request.data)
        wanted.is_valid(raise_exception=True)
        about, most = wanted.validated_data, settings.JOBSITE["UPLOAD_MAX_BYTES"]
        if about["bytes"] > most:
            raise TooLarge(f"A file may have {most} bytes.")
        begun = parts.begin(request.user.pk, name=about["name"], size=about["bytes"], sha256=about.get("sha256", ""))
        body = {
            "id": begun.upload.pk,
            "part_size": begun.part_size,
            "urls": begun.urls,
            "expires_at": begun.expires_at,
            "complete": url(request, "part-upload-complete", begun.upload.pk),
        }
        return Response(body, status=201, headers={"Cache-Control": "no-store"})


class PartUploadComplete(View):
    """All parts are there."""

    @extend_schema(operation_id="uploads_complete", request=CompleteForm, responses={201: UploadObject})
    def post(self, request, upload_id):
        """Make an upload of the parts, by their ETags in order. It is judged as any other; refused, it is gone."""
        parts.find(request.user.pk, upload_id)  # somebody else's is not there, whatever is sent
        intake.check_walls()
        wanted = CompleteForm(data=request.data)
        wanted.is_valid(raise_exception=True)
        upload = parts.complete(request.user.pk, upload_id, wanted.validated_data["parts"])
        return Response(represent(request, upload), status=201, headers={"Location": url(request, "upload", upload.pk)})
