"""Bring files: streamed to disk, measured on the way, judged by their bytes."""

import hashlib
from pathlib import Path

from django.conf import settings
from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.http.multipartparser import MultiPartParser, MultiPartParserError
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser, DataAndFiles
from rest_framework.response import Response

from .. import intake, queries
from .. import uploads as files
from ..errors import ErrorCode, Refused
from ..models import Upload
from .base import KeysetPagination, View, idempotency_key, refuse_unknown_query, url
from .parsers import TooLarge

OVERHEAD = 64 * 1024  # bytes that multipart may add around the file
PLAIN_FIELDS = {"csrfmiddlewaretoken"}
IDEMPOTENCY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="The same key and file make one upload, however often sent.",
)


class MeasuredUpload(TemporaryFileUploadHandler):
    """Writes the file to disk as it comes, takes its SHA-256, and stops at UPLOAD_MAX_BYTES."""

    def new_file(self, *args, **kwargs):
        super().new_file(*args, **kwargs)
        self.digest, self.received = hashlib.sha256(), 0

    def receive_data_chunk(self, raw_data, start):
        self.received += len(raw_data)
        if self.received > settings.JOBSITE["UPLOAD_MAX_BYTES"]:
            self.close_all()
            raise RequestDataTooBig
        self.digest.update(raw_data)
        super().receive_data_chunk(raw_data, start)

    def file_complete(self, file_size):
        file = super().file_complete(file_size)
        if file is not None:
            file.sha256 = self.digest.hexdigest()
        return file

    def close_all(self) -> None:
        """Remove the file of an upload that was broken off."""
        if getattr(self, "file", None) is not None:
            self.file.close()


class UploadParser(BaseParser):
    """multipart/form-data with one file, never held in memory."""

    media_type = "multipart/form-data"

    def parse(self, stream, media_type=None, parser_context=None) -> DataAndFiles:
        request = parser_context["request"]
        length, most = int(request.META.get("CONTENT_LENGTH") or 0), settings.JOBSITE["UPLOAD_MAX_BYTES"]
        if length > most + OVERHEAD:
            raise TooLarge(f"A file may have {most} bytes.")
        intake.check_disk(length)
        handler = MeasuredUpload(request)
        meta = {**request.META, "CONTENT_TYPE": media_type}
        try:
            return DataAndFiles(*MultiPartParser(meta, stream, [handler]).parse())
        except RequestDataTooBig as error:
            handler.close_all()
            raise TooLarge(f"A file may have {most} bytes.") from error
        except (MultiPartParserError, TooManyFieldsSent, TooManyFilesSent) as error:
            handler.close_all()
            raise ParseError(f"The form cannot be read: {error}"[:300]) from error
        except OSError as error:
            handler.close_all()
            raise Refused(ErrorCode.storage_full, retry_after=60.0) from error


class UploadForm(serializers.Serializer):
    file = serializers.FileField()


class UploadObject(serializers.Serializer):
    """A file that was brought. `reference` is what params take; `name` is only what the user called it."""

    id = serializers.UUIDField()
    reference = serializers.CharField()
    name = serializers.CharField()
    bytes = serializers.IntegerField()
    sha256 = serializers.CharField()
    content_type = serializers.CharField()
    created_at = serializers.DateTimeField()
    urls = serializers.DictField(child=serializers.URLField())


def represent(request, upload: Upload) -> dict:
    """The upload as a JSON-ready object."""
    return {
        "id": upload.pk,
        "reference": f"upload:{upload.pk}",
        "name": upload.name,
        "bytes": upload.bytes,
        "sha256": upload.sha256,
        "content_type": upload.content_type,
        "created_at": upload.created_at,
        "urls": {"self": url(request, "upload", upload.pk)},
    }


def brought(request, key: str | None = None) -> Upload:
    """Keep the form's `file`, once for an Idempotency-Key. Refused(invalid_request, bad_input, …) with nothing kept."""
    intake.check_walls()
    files_sent = request.FILES.getlist("file") if hasattr(request.FILES, "getlist") else []
    unknown = sorted({*request.POST, *request.FILES} - PLAIN_FIELDS - {"file"})
    if len(files_sent) != 1 or unknown:
        wrong = [(name, "unknown_field", "There is no such field.") for name in unknown]
        if len(files_sent) != 1:
            wrong.append(("file", "required", "Send exactly one file."))
        raise Refused(ErrorCode.invalid_request, wrong[0][2], fields=wrong)
    (file,) = files_sent
    path = Path(file.temporary_file_path())
    try:
        return files.take_in(request.user.pk, path=path, sha256=file.sha256, name=file.name, key=key)
    finally:
        path.unlink(missing_ok=True)


class Uploads(View):
    """The caller's uploads, newest first; bring one."""

    parser_classes = [UploadParser]
    pagination_class = KeysetPagination

    @extend_schema(operation_id="uploads_list", responses=UploadObject(many=True))
    def get(self, request):
        """List uploads."""
        refuse_unknown_query(request, {"limit", "cursor"})
        pages = KeysetPagination()
        rows = pages.paginate_queryset(queries.uploads_of(request.user), request)
        return pages.get_paginated_response([represent(request, row) for row in rows])

    @extend_schema(
        operation_id="uploads_create",
        request={"multipart/form-data": UploadForm},
        responses={201: UploadObject, 200: UploadObject},
        parameters=[IDEMPOTENCY],
    )
    def post(self, request):
        """Bring a video, picture or sound as the form's `file`. Unused for 24 hours, it is removed."""
        key = idempotency_key(request)
        known = bool(key) and queries.knows_key(request.user.pk, key)
        upload = brought(request, key)
        headers = {"Location": url(request, "upload", upload.pk)}
        if known:
            headers["Idempotent-Replayed"] = "true"
        return Response(represent(request, upload), status=200 if known else 201, headers=headers)


class UploadDetail(View):
    """One upload of the caller."""

    def upload(self, upload_id) -> Upload:
        """The upload of that id. Refused(not_found) if it is not there or somebody else's."""
        upload = queries.uploads_of(self.request.user).filter(pk=upload_id).first()
        if upload is None:
            raise Refused(ErrorCode.not_found)
        return upload

    @extend_schema(operation_id="uploads_retrieve", responses=UploadObject)
    def get(self, request, upload_id):
        """What is known of an upload."""
        return Response(represent(request, self.upload(upload_id)))

    @extend_schema(operation_id="uploads_delete", responses={204: None})
    def delete(self, request, upload_id):
        """Remove an upload; 409 while a live job needs it."""
        files.remove(self.upload(upload_id))
        return Response(status=204)
