"""`Prefer: wait=N` (RFC 7240): an answer is held until the job has ended, for N seconds at most."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

from django.db import Error
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.encoders import JSONEncoder

from ..errors import Refused
from ..models import FINAL, Job
from . import access
from .hub import Hub, Viewer, ask
from .later import later, until_gone, with_headers

MOST = 60  # seconds
_WAIT = re.compile(r'\bwait\s*=\s*"?([0-9]{1,6})"?\s*(?:$|[,;])', re.IGNORECASE)
PREFER = OpenApiParameter(
    "Prefer",
    str,
    OpenApiParameter.HEADER,
    description=f"`wait=N`: the answer comes once the job has ended, after N seconds (at most {MOST}) at the latest.",
)


def wanted(request: Request) -> int:
    """Seconds that the caller would wait; 0 if it did not say so."""
    found = _WAIT.search(request.headers.get("Prefer", ""))
    return min(int(found[1]), MOST) if found else 0


def held(request: Request, response: Response, job: Job, show: Callable[[], dict[str, Any]]) -> Response:
    """The response; if the caller would wait, one that becomes `show()` once the job has ended, or time is up.

    A 202 becomes a 200 if the job has ended. Whoever waits in too many places is not waited for, which a preference
    allows: the answer then has no Preference-Applied.
    """
    seconds, place = wanted(request), later(request)
    if not seconds:
        return response
    if job.status not in FINAL:
        if place is None:
            return response
        who = access.credential(request)
        try:
            place.hub.reserve(who.user_id)
        except Refused:
            return response
        place.promise = Wait(place.hub, Viewer(who, job_id=job.pk), seconds, show)
    response.headers["Preference-Applied"] = f"wait={seconds}"
    return response


class Wait:
    """The promise of an answer with the outcome."""

    def __init__(self, hub: Hub, viewer: Viewer, seconds: int, show: Callable[[], dict[str, Any]]):
        self.hub, self.viewer, self.seconds, self.show = hub, viewer, seconds, show

    def release(self) -> None:
        self.hub.release(self.viewer.credential.user_id)

    async def keep(self, start, body: bytes, receive, send) -> None:
        """Answer when the job has ended or time is up; as Django had it if it cannot be shown any more."""
        watching = asyncio.ensure_future(until_gone(receive))
        watching.add_done_callback(lambda _: self.viewer.end())
        try:
            now = await self._outcome()
        finally:
            watching.cancel()
            self.hub.leave(self.viewer)
        if now is not None:
            body = json.dumps(now, cls=JSONEncoder).encode()
            status = 200 if now["status"] in FINAL else start["status"]
            stale = ("etag", "retry-after") if status == 200 else ("etag",)
            start = {**with_headers(start, without=stale, content_length=str(len(body))), "status": status}
        await send(start)
        await send({"type": "http.response.body", "body": body})

    async def _outcome(self) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(self.seconds):
                await self.hub.join(self.viewer)
                now = await ask(self.show)
                if now["status"] in FINAL:
                    return now
                while not self.viewer.over:
                    await self.viewer.next()
        except TimeoutError:
            pass
        except (Error, Refused):
            return None
        if self.viewer.cut:  # the key has ended
            return None
        try:
            return await ask(self.show)
        except (Error, Refused):
            return None
