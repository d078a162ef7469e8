"""Webhooks: a user's endpoints, and the messages that they are owed (Standard Webhooks 1.0).

The jobs' events are the outbox: `owe` turns those of ended jobs into `Delivery` rows, so settling a job costs nothing
more. `webhook_sender` delivers them.
"""

import base64
import copy
import json
import secrets
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db.models import F, Model, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.crypto import salted_hmac
from rest_framework.utils.encoders import JSONEncoder
from standardwebhooks import Webhook

from . import outbox, queries
from .engines import outbound
from .errors import ErrorCode, Refused
from .models import Delivery, Endpoint, Job, JobEvent, Muted, Status
from .transactions import hold, write

TYPES = {Status.SUCCEEDED: "job.succeeded", Status.FAILED: "job.failed", Status.CANCELED: "job.canceled"}
TEST = "webhook.test"
STATES = {  # of deliveries, as `Delivery.state` names them
    "delivered": Q(delivered_at__isnull=False),
    "owed": Q(next_at__isnull=False),
    "failed": Q(delivered_at=None, next_at=None),
}
BODY_BYTES = 20_000
PORTS = (443, 8443)
URL_MOST = Endpoint._meta.get_field("url").max_length
OLD_SECRET = timedelta(hours=24)  # for so long after a rotation the old one signs, too
KEEP = timedelta(days=30)
TESTS = 10  # messages of type webhook.test that one endpoint may be asked for in a minute
SECONDS = 4.0  # that one turn of `owe` or `sweep` may take: the upkeep worker has other watchmen to run
EVENTS = 500  # read at once


# --- endpoints ------------------------------------------------------------------------------------------------------


def of(user: Model) -> QuerySet[Endpoint]:
    """A user's endpoints, newest first."""
    return Endpoint.objects.filter(owner=user).order_by("-id")


@write
def create(owner_id: int, *, url: str, description: str = "", types: Sequence[str] = ()) -> tuple[Endpoint, str]:
    """Make an endpoint. Returns it with the secret that its messages are signed with: show it once.

    Refused(invalid_request, too_many_webhooks).
    """
    hold(owner_id)
    if Endpoint.objects.filter(owner_id=owner_id).count() >= settings.JOBSITE["WEBHOOKS_PER_USER"]:
        raise Refused(ErrorCode.too_many_webhooks)
    salt, secret = _new_secret()
    made = Endpoint.objects.create(
        owner_id=owner_id,
        url=checked(url),
        description=description,
        types=sorted(types),
        salt=salt,
        hint=_hint(secret),
        cursor=_last_event(),
    )
    return Endpoint.objects.get(pk=made.pk), secret


def change(endpoint: Endpoint, *, enabled: bool | None = None, **fields: Any) -> Endpoint:
    """Set `url`, `description` or `types`; switch it on or off. Refused(invalid_request) for a URL that may not be.

    What a muted endpoint missed is not sent when it is switched on: `replay_failed` does that. While it is off by its
    owner's hand it misses what happens for good.
    """
    if "url" in fields:
        fields["url"] = checked(fields["url"])
    if "types" in fields:
        fields["types"] = sorted(fields["types"])
    if fields:
        Endpoint.objects.filter(pk=endpoint.pk).update(**fields)
    if enabled is False:
        mute(endpoint.pk, Muted.OFF)
    elif enabled:
        enable(endpoint)
    return Endpoint.objects.get(pk=endpoint.pk)


def enable(endpoint: Endpoint) -> bool:
    """Unmute an endpoint. False if it was not muted."""
    missed = {"cursor": _last_event()} if endpoint.muted == Muted.OFF else {}
    fresh = {"failures": 0, "failing_since": None, "rest_until": None, "tell_at": None}
    muted = Endpoint.objects.filter(pk=endpoint.pk).exclude(muted="")
    return bool(muted.update(muted="", muted_at=None, **fresh, **missed))


@write
def mute(endpoint_id: uuid.UUID, why: Muted) -> bool:
    """Let an endpoint get nothing more; what it is owed is held. False if it was muted before.

    Its owner is told by mail, unless it was by their hand.
    """
    told = None if why == Muted.OFF else Now()
    muted = Endpoint.objects.filter(pk=endpoint_id, muted="").update(muted=why, muted_at=Now(), tell_at=told)
    if muted:
        Delivery.objects.filter(endpoint_id=endpoint_id, next_at__isnull=False).update(next_at=None)
    return bool(muted)


def rotate(endpoint: Endpoint) -> str:
    """Give an endpoint a new secret, and return it: show it once. Until OLD_SECRET is over the old one signs, too."""
    salt, secret = _new_secret()
    Endpoint.objects.filter(pk=endpoint.pk).update(
        salt=salt, hint=_hint(secret), old_salt=F("salt"), old_until=Now() + OLD_SECRET
    )
    return secret


def checked(url: str) -> str:
    """The URL as it will be called. Refused(invalid_request) unless it may be, as far as that shows without asking
    for its name; that is done at each try."""
    try:
        address = str(outbound.check(url, ports=PORTS, trusted=settings.JOBSITE["WEBHOOK_NETWORKS"]))
        if len(address) > URL_MOST:
            raise outbound.Refused(f"The address may have {URL_MOST} characters, as it is sent.")
        return address
    except outbound.Refused as error:
        raise Refused(ErrorCode.invalid_request, str(error), fields=[("url", "not_allowed", str(error))]) from error


# --- secrets --------------------------------------------------------------------------------------------------------


def _new_secret() -> tuple[str, str]:
    salt = secrets.token_hex(16)
    return salt, secret_of(salt)


def secret_of(salt: str) -> str:
    """The signing secret of a salt: derived from SECRET_KEY, so that neither a column nor a backup of them holds it."""
    key = salted_hmac("jobs.webhooks", salt, algorithm="sha256").digest()
    return "whsec_" + base64.b64encode(key).decode("ascii")


def _hint(secret: str) -> str:
    return secret.rstrip("=")[-4:]


def can_sign(endpoint: Endpoint) -> bool:
    """False if SECRET_KEY has changed since the secret was shown: then only a rotation helps."""
    return _hint(secret_of(endpoint.salt)) == endpoint.hint


def message_id(delivery_id: uuid.UUID) -> str:
    """A message's webhook-id."""
    return f"msg_{delivery_id.hex}"


def signed(endpoint: Endpoint, delivery_id: uuid.UUID, body: str) -> dict[str, str]:
    """The headers of a try that begins now: id, time and a signature by each secret that holds."""
    now, number = timezone.now(), message_id(delivery_id)
    old = [endpoint.old_salt] if endpoint.old_until and endpoint.old_until > now else []
    return {
        "webhook-id": number,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(
            Webhook(secret_of(salt)).sign(number, now, body) for salt in [endpoint.salt, *old]
        ),
    }


# --- the outbox -----------------------------------------------------------------------------------------------------

Represent = Callable[[list[Job]], list[dict[str, Any]]]  # jobs as the API shows them


def owe(represent: Represent, *, seconds: float = SECONDS) -> int:
    """Turn the events of ended jobs into messages to their owners' endpoints. Returns how many were made.

    May be run by many at once and die anywhere: a message exists once by its UNIQUE (event, endpoint), and the cursors
    move last. What an endpoint that failed too long would have got is kept, held, for a replay.
    """
    until = time.monotonic() + seconds
    listening = Endpoint.objects.exclude(muted=Muted.OFF).filter(owner__is_active=True)
    endpoints: dict[int, list[Endpoint]] = defaultdict(list)
    for endpoint in listening.only("owner_id", "types", "muted", "cursor"):
        endpoints[endpoint.owner_id].append(endpoint)
    if not endpoints:
        return 0
    last = min(endpoint.cursor for group in endpoints.values() for endpoint in group)
    theirs = listening.order_by().values("owner")
    ended = JobEvent.objects.filter(status__in=list(TYPES), job__owner__in=theirs).select_related("job")
    make = partial(_make, endpoints, represent)
    made, safe = outbox.read_on(ended, "at", last, make, batch=EVENTS, until=until)
    listening.filter(cursor__lt=safe).update(cursor=safe)
    return made


def _make(endpoints: dict[int, list[Endpoint]], represent: Represent, events: list[JobEvent]) -> int:
    """Write the messages of `events` that are not written yet."""
    wanted = [
        (event, endpoint)
        for event in events
        for endpoint in endpoints[event.job.owner_id]
        if event.pk > endpoint.cursor and (not endpoint.types or TYPES[Status(event.status)] in endpoint.types)
    ]
    ids = {event.pk for event, _ in wanted}
    known = set(Delivery.objects.filter(event__in=ids).values_list("event", "endpoint"))
    wanted = [(event, endpoint) for event, endpoint in wanted if (event.pk, endpoint.pk) not in known]
    bodies = _bodies({event.pk: event for event, _ in wanted}, represent)
    new = [
        Delivery(
            endpoint=endpoint,
            event=event.pk,
            job=event.job_id,
            type=TYPES[Status(event.status)],
            body=bodies[event.pk],
            next_at=None if endpoint.muted else Now(),
        )
        for event, endpoint in wanted
        if event.pk in bodies
    ]
    Delivery.objects.bulk_create(new, batch_size=100, ignore_conflicts=True)
    return len(new)


def _bodies(events: dict[int, JobEvent], represent: Represent) -> dict[int, str]:
    """Event id → message. The job is shown as it ended then, though it may be on its next round by now."""
    jobs = queries.with_outputs(Job.objects.all()).in_bulk({event.job_id for event in events.values()})
    rounds: list[dict[uuid.UUID, JobEvent]] = []  # of events, each of other jobs: costs are read for all at once
    for event in events.values():
        rounds = rounds if any(event.job_id not in group for group in rounds) else [*rounds, {}]
        next(group for group in rounds if event.job_id not in group)[event.job_id] = event
    bodies = {}
    for group in rounds:
        there = [event for event in group.values() if event.job_id in jobs]
        shown = represent([_as_it_ended(jobs[event.job_id], event) for event in there])
        for event, data in zip(there, shown, strict=True):
            bodies[event.pk] = message(TYPES[Status(event.status)], event.at, data)
    return bodies


def _as_it_ended(job: Job, event: JobEvent) -> Job:
    if (job.status, job.round, job.attempt) == (event.status, event.round, event.attempt):
        return job
    then = copy.copy(job)
    then.status, then.round, then.attempt, then.finished_at = event.status, event.round, event.attempt, event.at
    then.error_code, then.error_message, then.run_after = event.code, event.message, None
    return then


def message(kind: str, at: datetime, data: dict[str, Any]) -> str:
    """The body of a message, under BODY_BYTES: what is too long is emptied and named in `cut`."""
    body: dict[str, Any] = {"type": kind, "timestamp": at, "data": data}
    for name in ("params", "metadata", "outputs", ""):
        text = json.dumps(body, cls=JSONEncoder, separators=(",", ":"))
        if len(text) <= BODY_BYTES or not name:
            break
        body["data"] = {**body["data"], name: type(data[name])()}
        body["cut"] = [*body.get("cut", []), name]
    return text


# --- by hand --------------------------------------------------------------------------------------------------------


def send_test(endpoint: Endpoint) -> Delivery:
    """Owe an endpoint a message of type webhook.test. Refused(webhook_muted, rate_limited)."""
    _not_muted(endpoint)
    lately = endpoint.deliveries.filter(type=TEST, id__gt=queries.first_id_since(60.0)).order_by()
    if lately[:TESTS].count() >= TESTS:  # they cost no tokens, and each is a row for thirty days
        detail = f"At most {TESTS} test messages a minute are sent to a webhook."
        raise Refused(ErrorCode.rate_limited, detail, retry_after=60.0)
    body = message(TEST, timezone.now(), {"endpoint": str(endpoint.pk)})
    made = Delivery.objects.create(endpoint=endpoint, type=TEST, body=body, next_at=Now())
    return Delivery.objects.get(pk=made.pk)


def replay(delivery: Delivery) -> Delivery:
    """Owe a message again, at once and with all its tries, whatever became of it. Refused(webhook_muted)."""
    _not_muted(delivery.endpoint)
    Delivery.objects.filter(pk=delivery.pk).update(next_at=Now(), tries=0, delivered_at=None)
    return Delivery.objects.get(pk=delivery.pk)


def replay_failed(endpoint: Endpoint, since: datetime) -> int:
    """Owe again what was made since then and never delivered. Returns how many. Refused(webhook_muted)."""
    _not_muted(endpoint)
    failed = endpoint.deliveries.filter(created_at__gte=since, next_at=None, delivered_at=None)
    return failed.update(next_at=Now(), tries=0)


def _not_muted(endpoint: Endpoint) -> None:
    if endpoint.muted:
        raise Refused(ErrorCode.webhook_muted)


def due() -> QuerySet[Delivery]:
    """What could be sent now: not to endpoints that are muted or whose hosts asked for a pause, nor of owners who were
    shut out."""
    awake = Q(endpoint__rest_until=None) | Q(endpoint__rest_until__lte=Now())
    return Delivery.objects.filter(awake, next_at__lte=Now(), endpoint__muted="", endpoint__owner__is_active=True)


def sweep(*, seconds: float = SECONDS) -> int:
    """Delete messages that are older than KEEP. Returns how many."""
    until, gone = time.monotonic() + seconds, 0
    old = Delivery.objects.filter(created_at__lt=Now() - KEEP).order_by("created_at").values_list("pk", flat=True)
    while time.monotonic() < until and (ids := list(old[: settings.JOBSITE["CLEANUP_BATCH"]])):
        gone += Delivery.objects.filter(pk__in=ids).delete()[0]
    return gone


def _last_event() -> int:
    return JobEvent.objects.order_by("-id").values_list("id", flat=True).first() or 0
