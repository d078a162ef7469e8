"""Live events (Server-Sent Events): what happens to one job, or to all of the caller's, as it happens."""

import asyncio
import random
import re
import uuid
from typing import Any

from django.db import Error
from django.http import HttpResponse
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiParameter, OpenApiTypes, extend_schema
from rest_framework import exceptions, serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.response import Response

from ..errors import ErrorCode, Refused
from ..models import FINAL, ApiKey, JobEvent
from . import access, feed, stream_tokens
from .base import AnyAccept, View, refuse_unknown_query, url
from .hub import Hub, Viewer, ask
from .jobs import JobView
from .later import later, until_gone, with_headers

SEND_SECONDS = 30.0  # a reader that takes nothing for so long has gone
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "Content-Encoding": "identity",  # whoever compresses holds events back
    "X-Accel-Buffering": "no",
}
STREAM = {(200, "text/event-stream"): OpenApiTypes.STR}
AFTER = [
    OpenApiParameter("after", int, description="Only events with a higher id."),
    OpenApiParameter("Last-Event-ID", int, OpenApiParameter.HEADER, description="The same, and wins over `after`."),
]


class StreamTokenAuthentication(BaseAuthentication):
    """`?token=` of the stream's own job. Without one the request's key or session counts."""

    def authenticate(self, request):
        token = request.query_params.get("token")
        if token is None:
            return None
        job_id = request.parser_context["kwargs"]["job_id"]
        found = stream_tokens.opened(token, job_id)
        if found is None:
            raise exceptions.AuthenticationFailed("The token is not for this job, too old, or its key has ended.")
        request._request.stream_until = found.until
        return found.key.owner, found.key

    def authenticate_header(self, request) -> str:
        return "Bearer"


class StreamTokenScheme(OpenApiAuthenticationExtension):
    """How the OpenAPI document names the token."""

    target_class = "jobs.api.events.StreamTokenAuthentication"
    name = "streamToken"

    def get_security_definition(self, auto_schema):
        return {"type": "apiKey", "in": "query", "name": "token"}


class StreamToken(serializers.Serializer):
    token = serializers.CharField()
    expires_in = serializers.IntegerField(help_text="Seconds.")
    url = serializers.URLField(help_text="For `new EventSource(url)`.")


class JobEvents(JobView):
    """The events of one job."""

    authentication_classes = [StreamTokenAuthentication, *View.authentication_classes]
    content_negotiation_class = AnyAccept

    @extend_schema(
        operation_id="jobs_events",
        responses={**STREAM, 204: None},
        parameters=[OpenApiParameter("token", str, description="A stream token, in place of a key."), *AFTER],
    )
    def get(self, request, job_id):
        """Every event so far, then each as it comes, until the job has ended; 204 if nothing comes after `after`."""
        refuse_unknown_query(request, {"after", "token"})
        after = _after(request)
        job = self.job(job_id)
        if after is not None and job.status in FINAL and not JobEvent.objects.filter(job=job, id__gt=after).exists():
            return Response(status=204)  # an EventSource does not come back after that
        return opened(request, after, job_id=job.pk, until=getattr(request._request, "stream_until", None))


class AllEvents(View):
    """The events of all the caller's jobs."""

    content_negotiation_class = AnyAccept

    @extend_schema(operation_id="events", responses=STREAM, parameters=AFTER)
    def get(self, request):
        """From now on, or from `after` on: one stream for a page with many jobs. Only one's own, whatever the scope."""
        refuse_unknown_query(request, {"after"})
        return opened(request, _after(request))


class JobStreamToken(JobView):
    """A token for the events of one job."""

    @extend_schema(operation_id="jobs_stream_token", request=None, responses=StreamToken)
    def post(self, request, job_id):
        """For a browser's EventSource, which sends no key: good for ten minutes and this job's events alone."""
        if not isinstance(request.auth, ApiKey):
            raise Refused(ErrorCode.permission_denied, "A session needs no token: its cookie opens the stream.")
        job = self.job(job_id)
        token = stream_tokens.issue(request.auth, job.pk)
        address = f"{url(request, 'job-events', job.pk)}?token={token}"
        return Response(
            {"token": token, "expires_in": stream_tokens.SECONDS, "url": address}, headers={"Cache-Control": "no-store"}
        )


def _after(request) -> int | None:
    given = [request.headers.get("Last-Event-ID") or None, request.query_params.get("after")]
    given = [one for one in given if one is not None]
    if not all(re.fullmatch(r"[0-9]{1,18}", one) for one in given):
        raise exceptions.ValidationError({"after": ["Must be the id of an event."]})
    return int(given[0]) if given else None


def opened(request, after: int | None, *, job_id: uuid.UUID | None = None, until: float | None = None) -> HttpResponse:
    """The answer that a stream begins with; the rest follows once Django has finished with the request."""
    if request.method != "HEAD" and (place := later(request)):
        who = access.credential(request)
        place.hub.reserve(who.user_id)
        place.promise = Stream(place.hub, who, after, job_id=job_id, until=until)
    again = random.randint(1000, 4000)  # milliseconds; not all come back at once
    return HttpResponse(f"retry: {again}\n", headers=HEADERS)


class Stream:
    """The promise of a stream."""

    def __init__(self, hub: Hub, credential: access.Credential, after: int | None, **viewer: Any):
        self.hub, self.credential, self.after, self.viewer = hub, credential, after, viewer

    def release(self) -> None:
        self.hub.release(self.credential.user_id)

    async def keep(self, start, body: bytes, receive, send) -> None:
        """Send what was missed, then what comes, until the viewer has gone or it is over."""
        viewer = Viewer(self.credential, **self.viewer)
        watching = asyncio.ensure_future(until_gone(receive))
        watching.add_done_callback(lambda _: viewer.end(at_once=True))
        try:
            await send(with_headers(start, without=("content-length",)))
            await _send(send, body)
            last = await self.hub.join(viewer)
            await self._catch_up(viewer, last)
            while text := await viewer.next():
                await _send(send, text)
            await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            pass  # it reads no more
        finally:
            watching.cancel()
            self.hub.leave(viewer)

    async def _catch_up(self, viewer: Viewer, last: int) -> None:
        """Put what was missed before what has come since."""
        if viewer.job_id is None and self.after is None:
            viewer.tell_first({"position": feed.sse("position", "{}", number=last)}, last=False)
            return
        try:
            if viewer.job_id:
                missed, over = await ask(feed.replay_job, viewer.job_id, self.after or 0)
            else:
                missed, over = await ask(feed.replay_owner, viewer.credential.user_id, self.after)
        except Error:  # the database has gone
            viewer.end()
        else:
            viewer.tell_first(missed, last=over)


async def _send(send, text: bytes) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await send({"type": "http.response.body", "body": text, "more_body": True})
