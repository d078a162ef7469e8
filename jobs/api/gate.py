"""Before Django reads a request's body to disk: who may send how much. An ASGI application around ours."""

import json
import uuid
from collections.abc import Awaitable, Callable
from importlib import import_module

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import Error, connection
from django.http import parse_cookie

from .. import intake, keys, throttles
from ..errors import ErrorCode, Refused
from .errors import MEDIA_TYPE, headers_of, problem
from .parsers import MOST_BYTES
from .uploads import OVERHEAD

UPLOADS = ("/api/uploads", "/api/upload")
UPLOAD_PAGES = "/my/jobs/new/"  # forms that bring their files along
FORM_BYTES = 4 * MOST_BYTES  # pages of the admin; Django's own limits are tighter


class BodyGate:
    """Answers at once what would only be refused after gigabytes were written: too large (413), without a length
    (411), an upload without a live key or session (401), no room for it (507)."""

    def __init__(self, application: Callable[..., Awaitable[None]]):
        self.application = application

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "http" and (refused := await self._refused(scope)):
            return await _answer(send, *refused)
        return await self.application(scope, receive, send)

    async def _refused(self, scope) -> tuple[Refused, int] | None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if b"transfer-encoding" in headers:
            return Refused(ErrorCode.invalid_request, "Send a Content-Length."), 411
        length = headers.get(b"content-length", "0")
        size = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 2**63
        upload = scope["path"].rstrip("/") in UPLOADS or scope["path"].startswith(UPLOAD_PAGES)
        most = settings.JOBSITE["UPLOAD_MAX_BYTES"] + OVERHEAD if upload else FORM_BYTES
        if size > most:
            return Refused(ErrorCode.too_large, f"At most {most} bytes are taken here."), 413
        if upload and size > MOST_BYTES:
            address = (scope.get("client") or [""])[0]
            refused = await sync_to_async(_may_not_upload, thread_sensitive=False)(headers, size, address)
            return refused and (refused, refused.code.row.http)
        return None


def _may_not_upload(headers: dict[bytes, str], size: int, address: str) -> Refused | None:
    """Why a large upload is refused before it is read. Only looks whether somebody is there; the view asks again."""
    try:
        intake.check_disk(2 * size)  # the body as it came, and the file in it
        if not _somebody(headers, address):
            return Refused(ErrorCode.not_authenticated)
    except Refused as refused:
        return refused
    except Error:
        return Refused(ErrorCode.database_unavailable)
    finally:
        connection.close()  # this thread is nobody else's
    return None


def _somebody(headers: dict[bytes, str], address: str) -> bool:
    scheme, _, secret = headers.get(b"authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        secret = secret.strip()
        if keys.find(secret) is None:
            forwarded = headers.get(b"x-forwarded-for", "")
            throttles.wrong_key({"REMOTE_ADDR": address, "HTTP_X_FORWARDED_FOR": forwarded}, secret)
            return False
        return True
    session = parse_cookie(headers.get(b"cookie", "")).get(settings.SESSION_COOKIE_NAME)
    if not session or "\0" in session:
        return False
    return import_module(settings.SESSION_ENGINE).SessionStore().exists(session)


async def _answer(send, refused: Refused, status: int) -> None:
    name = uuid.uuid4().hex
    body = json.dumps(problem(refused.code, refused.detail, http=status, request_id=name)).encode()
    headers = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "X-Request-Id": name,
        "Connection": "close",
    }
    headers |= headers_of(status, refused)
    wire = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": wire})
    await send({"type": "http.response.body", "body": body})
