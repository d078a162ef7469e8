"""Downloads: the bytes of an output, whole or in part, as a file to keep and never as a page to show."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from django.core.files.base import File
from django.core.files.storage import default_storage
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections, connection
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header, http_date
from drf_spectacular.utils import OpenApiParameter, OpenApiTypes, extend_schema
from rest_framework.request import Request

from .. import blobs
from ..errors import ErrorCode, Refused
from ..models import Artifact, Status
from ..models.artifact import Damage
from .base import AnyAccept
from .errors import MEDIA_TYPE, problem, request_id
from .jobs import JobView

CHUNK = 256 * 1024  # bytes
LINK_SECONDS = 600  # that a link into the bucket opens for whoever has it
CHANGED = "The stored file is not the one that the job made."
SHOWN_TYPES = {  # all else is octets: a type that a browser would run never leaves here (FAULTS S27)
    *("video/mp4", "video/webm", "video/quicktime", "video/x-matroska", "image/png", "image/jpeg", "image/webp"),
    "image/tiff",
    *("image/gif", "audio/mpeg", "audio/wav", "audio/ogg", "audio/flac", "audio/mp4", "audio/aac"),
    *("text/plain", "text/csv", "application/json"),
}
DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10))}
RANGE = OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="One range of bytes, as in RFC 9110.")
TYPES = ["application/octet-stream", *sorted(SHOWN_TYPES)]


class JobOutput(JobView):
    """One output of a job."""

    content_negotiation_class = AnyAccept

    @extend_schema(
        operation_id="jobs_output",
        parameters=[RANGE],
        responses={**{(code, kind): OpenApiTypes.BINARY for code in (200, 206) for kind in TYPES}, 302: None},
    )
    def get(self, request, job_id, name):
        """Download an output. 302 where it is kept in a bucket: to an address there, good for ten minutes, that wants
        no key. 410 if it is no longer stored, or no longer what was stored."""
        job = self.job(job_id)
        known = Artifact.objects.filter(job=job, job__status=Status.SUCCEEDED, name=name)
        file = None if "\0" in name else known.first()  # PostgreSQL cannot be asked for a NUL
        if file is None:
            raise Refused(ErrorCode.not_found)
        headers = _headers(file)
        if headers["ETag"] in [tag.strip() for tag in request.headers.get("If-None-Match", "").split(",")]:
            return HttpResponse(status=304, headers=headers)
        try:
            span = _wanted(request, headers, file.bytes)
        except ValueError:
            return _unsatisfiable(request, file.bytes)
        start, end = span or (0, file.bytes)
        headers["Content-Length"] = str(end - start)
        if span:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.bytes}"
        status = 206 if span else 200
        if not blobs.is_remote():
            return _answer(request, _opened(file), start, end, status=status, headers=headers)
        _check_stored(file)
        return HttpResponse(status=status, headers=headers) if request.method == "HEAD" else _elsewhere(file, headers)


def download_name(name: str) -> str:
    """A file's name as any system can save it: plain characters, no device of Windows, not hidden (FAULTS S38)."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[-150:].strip(".") or "file"
    return f"_{plain}" if plain.partition(".")[0].upper() in DEVICES else plain


def _headers(file: Artifact) -> dict[str, str]:
    return {
        "Content-Type": file.content_type if file.content_type in SHOWN_TYPES else "application/octet-stream",
        "Content-Disposition": content_disposition_header(True, download_name(file.name)),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Accept-Ranges": "bytes",
        "ETag": f'"{file.sha256}"',
        "Last-Modified": http_date(file.created_at.timestamp()),
        "Cache-Control": "private, no-cache",
    }


def _opened(file: Artifact) -> File:
    """The stored file. Refused(output_gone) if it is not there, or not what it was when it was stored."""
    with _told(file):
        stored = default_storage.open(file.key, "rb")
        if stored.size != file.bytes:
            stored.close()
            raise Refused(ErrorCode.output_gone, CHANGED)
    return stored


def _check_stored(file: Artifact) -> None:
    with _told(file):
        if blobs.size(file.key) != file.bytes:
            raise Refused(ErrorCode.output_gone, CHANGED)


@contextmanager
def _told(file: Artifact) -> Iterator[None]:
    """What the storage answers, and what the daily sweep found, as the caller is told."""
    if file.damage == Damage.CONTENT:
        raise Refused(ErrorCode.output_gone, CHANGED)
    try:
        yield
    except FileNotFoundError as error:
        raise Refused(ErrorCode.output_gone) from error
    except OSError as error:
        wait = getattr(error, "wait", None)
        raise Refused(ErrorCode.storage_full, "The storage does not give the file.", retry_after=wait) from error


def _elsewhere(file: Artifact, headers: dict[str, str]) -> HttpResponse:
    """To the bucket, whose answer to a range is its own."""
    address = default_storage.download_url(
        file.key,
        seconds=LINK_SECONDS,
        disposition=headers["Content-Disposition"],
        content_type=headers["Content-Type"],
    )
    # neither the link nor where it leads to is anybody's to keep: it opens without a key
    return HttpResponse(
        status=302, headers={"Location": address, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    )


def _wanted(request: Request, headers: dict[str, str], size: int) -> tuple[int, int] | None:
    """The range asked for as (first byte, byte after the last); None for the whole file.

    ValueError if no byte of the file is in it. What RFC 9110 lets a server ignore (other units, several ranges, bad
    syntax, an If-Range that no longer holds) is ignored.
    """
    if request.headers.get("If-Range", headers["ETag"]) not in (headers["ETag"], headers["Last-Modified"]):
        return None
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", request.headers.get("Range", "").strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < int(first):
            return None
    if start >= end:
        raise ValueError("no byte of the file")
    return start, end


def _unsatisfiable(request: Request, size: int) -> HttpResponseBase:
    body = problem(ErrorCode.invalid_request, f"The file has {size} bytes.", http=416, request_id=request_id(request))
    return JsonResponse(body, status=416, content_type=MEDIA_TYPE, headers={"Content-Range": f"bytes */{size}"})


def _answer(request: Request, stored: File, start: int, end: int, *, status: int, headers) -> HttpResponseBase:
    if not connection.in_atomic_block:
        close_old_connections()  # a slow download must not hold a database connection
    if request.method == "HEAD":
        stored.close()
        return HttpResponse(status=status, headers=headers)
    stored.seek(start)
    # Django collects a plain iterator whole in memory when it serves under ASGI, and an async one under WSGI.
    asgi = isinstance(request._request, ASGIRequest)
    pieces = _pieces_later(stored, end - start) if asgi else _pieces(stored, end - start)
    response = StreamingHttpResponse(pieces, status=status, headers=headers)
    response._resource_closers.append(stored.close)
    return response


def _pieces(stored: File, left: int) -> Iterator[bytes]:
    while left > 0 and (piece := stored.read(min(CHUNK, left))):
        left -= len(piece)
        yield piece


async def _pieces_later(stored: File, left: int) -> AsyncIterator[bytes]:
    while left > 0 and (piece := await asyncio.to_thread(stored.read, min(CHUNK, left))):
        left -= len(piece)
        yield piece
