"""Delivering what endpoints are owed: many at once, few to each, none for longer than DEADLINE.

All of it happens in a thread of the upkeep worker, so that neither a job nor a watchman waits for a stranger's host.
"""

import asyncio
import logging
import random
import time
import uuid
from collections import Counter
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime

from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.core.mail import send_mail
from django.db.models import F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from . import webhooks
from .background import Errand
from .engines import outbound
from .models import Delivery, Endpoint, Muted
from .transactions import write

log = logging.getLogger(__name__)

DEADLINE = 15.0  # seconds for one try, from the name's look-up to the answer's last byte
ANSWER_BYTES = 16 * 1024  # that are read of an answer
EXCERPT = 500  # characters that are kept of it
LEASE = timedelta(seconds=60)  # a try that nobody told the end of is made again after so long
PAUSES = [10, 300, 1800, 7200, 28_800, 72_000, 144_000]  # seconds after the first to the seventh failure: 70 hours
TRIES = len(PAUSES) + 1
JITTER = 0.1  # a pause is up to so much longer
PAUSE_MOST = 86_400.0  # seconds that a Retry-After is obeyed for
LOG_MOST = 20  # tries that a delivery keeps
MUTE_FAILURES, MUTE_AFTER = 8, timedelta(hours=24)  # so many in a row, over so long: muted
TOGETHER = 64  # tries under way at once
TOGETHER_FAILING = 32  # of which endpoints that failed the last time may have so many
PER_OWNER, PER_ENDPOINT = 8, 4  # an endpoint that failed the last time: 1
POLL = 1.0  # seconds until it is looked again for what has become due
MAIL_AGAIN = timedelta(hours=1)  # a mail that could not be sent


@dataclass(frozen=True)
class Sending:
    """A try that this process has taken."""

    delivery_id: uuid.UUID
    endpoint: Endpoint
    attempt: int  # the token: only who raised it may write what became of it
    tries: int  # with this one
    body: str
    log: list


@dataclass(frozen=True)
class Came:
    """What became of a try; `status` is None if no answer came."""

    status: int | None
    error: str
    excerpt: str
    seconds: float
    retry_after: float = 0.0

    @property
    def taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def deliver() -> int:
    """Make the tries that are due, until none is due or under way. Returns how many were made."""
    names = ThreadPoolExecutor(TOGETHER, thread_name_prefix="names")
    try:
        return async_to_sync(_deliver)(names)
    finally:
        names.shutdown(wait=False)  # a name server that is silent holds its thread for a while


async def _deliver(names: Executor) -> int:
    take, settle = sync_to_async(_take), sync_to_async(_settle)
    flying: dict[asyncio.Task[Came], Sending] = {}
    made = 0
    while True:
        for sending in await take(list(flying.values())):
            flying[asyncio.create_task(_send(sending, names))] = sending
        if not flying:
            return made
        done, _ = await asyncio.wait(flying, timeout=POLL, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            sending, wrong = flying.pop(task), task.exception()
            if wrong:  # a bug of ours: it costs this try, not those of the others
                log.error("Webhook %s: unexpected %s", sending.delivery_id, type(wrong).__name__, exc_info=wrong)
            await settle(sending, Came(None, "The try broke off.", "", 0.0) if wrong else task.result())
            made += 1


def _take(flying: list[Sending]) -> list[Sending]:
    """Take what is due, the endpoints that work first; no endpoint and no owner gets more than their share."""
    by_endpoint = Counter(sending.endpoint.pk for sending in flying)
    by_owner = Counter(sending.endpoint.owner_id for sending in flying)
    room = TOGETHER - len(flying)
    due = Delivery.objects.filter(next_at__lte=Now()).order_by("next_at")
    first = due.filter(endpoint=OuterRef("pk")).values("next_at")[:1]
    awake = Q(rest_until=None) | Q(rest_until__lte=Now())
    waiting = Endpoint.objects.filter(awake, muted="", owner__is_active=True).annotate(due=Subquery(first))
    waiting = waiting.filter(due__isnull=False).exclude(owner__in=[pk for pk, n in by_owner.items() if n >= PER_OWNER])
    taken: list[Sending] = []
    for failing, most, free in ((False, PER_ENDPOINT, room), (True, 1, room - (TOGETHER - TOGETHER_FAILING))):
        full = [pk for pk, number in by_endpoint.items() if number >= most]
        group = waiting.filter(failures__gt=0) if failing else waiting.filter(failures=0)
        for endpoint in group.exclude(pk__in=full).order_by("due")[: max(0, free - len(taken))]:
            number = min(
                most - by_endpoint[endpoint.pk], PER_OWNER - by_owner[endpoint.owner_id], max(0, free - len(taken))
            )
            mine = [_take_one(delivery, endpoint) for delivery in due.filter(endpoint=endpoint)[: max(0, number)]]
            mine = [sending for sending in mine if sending]
            by_owner[endpoint.owner_id] += len(mine)
            taken += mine
    return taken


def _take_one(delivery: Delivery, endpoint: Endpoint) -> Sending | None:
    """Compare-and-set: whoever moves `next_at` on makes the try."""
    mine = Delivery.objects.filter(pk=delivery.pk, attempts=delivery.attempts, next_at__lte=Now())
    if not mine.update(next_at=Now() + LEASE, attempts=F("attempts") + 1, tries=F("tries") + 1):
        return None
    return Sending(delivery.pk, endpoint, delivery.attempts + 1, delivery.tries + 1, delivery.body, list(delivery.log))


async def _send(sending: Sending, names: Executor) -> Came:
    """One try. Never raises for what a host does."""
    endpoint, began = sending.endpoint, time.monotonic()
    if not webhooks.can_sign(endpoint):
        return Came(None, "The platform's key has changed: rotate the secret.", "", 0.0)
    try:
        answer = await outbound.post(
            endpoint.url,
            sending.body.encode(),
            {
                "Content-Type": "application/json",
                "User-Agent": "Jobsite-Webhooks/1",
                **webhooks.signed(endpoint, sending.delivery_id, sending.body),
            },
            seconds=DEADLINE,
            most=ANSWER_BYTES,
            ports=webhooks.PORTS,
            trusted=settings.JOBSITE["WEBHOOK_NETWORKS"],
            names=names,
        )
    except (outbound.Refused, outbound.Failed) as error:
        return Came(None, str(error), "", time.monotonic() - began)
    return Came(
        answer.status,
        _words(answer.status),
        _excerpt(answer.body),
        time.monotonic() - began,
        _retry_after(answer.headers.get("Retry-After", "")),
    )


def _words(status: int) -> str:
    if 200 <= status < 300:
        return ""
    return f"Answered {status}" + (": redirects are not followed." if 300 <= status < 400 else ".")


def _excerpt(body: bytes) -> str:
    """The beginning of an answer, for people: printable, on one line."""
    text = body[: 4 * EXCERPT].decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:EXCERPT]


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After asks for, as a number or a date, at most PAUSE_MOST; 0 if it cannot be read."""
    value = value.strip()[:40]
    try:
        seconds = float(value) if value.isdecimal() else (parsedate_to_datetime(value) - timezone.now()).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(PAUSE_MOST, max(0.0, seconds))


@write
def _settle(sending: Sending, came: Came) -> None:
    """Write what became of a try, unless the message was taken by another meanwhile."""
    entry = {
        "at": timezone.now().isoformat(timespec="seconds"),
        "status": came.status,
        "seconds": round(came.seconds, 3),
        "error": came.error,
        "excerpt": came.excerpt,
    }
    endpoint = Endpoint.objects.filter(pk=sending.endpoint.pk)
    muted = endpoint.select_for_update(no_key=True).values_list("muted", flat=True).first()
    if came.taken:
        changes = {"delivered_at": Now(), "next_at": None}
    elif muted or sending.tries >= TRIES:  # another try of the same moment may have muted it
        changes = {"next_at": None}
    else:
        pause = PAUSES[sending.tries - 1] * (1 + random.random() * JITTER)
        changes = {"next_at": Now() + timedelta(seconds=max(pause, came.retry_after))}
    mine = Delivery.objects.filter(pk=sending.delivery_id, attempts=sending.attempt)
    if not mine.update(log=[*sending.log, entry][-LOG_MOST:], **changes):
        return
    if came.taken:
        endpoint.filter(failures__gt=0).update(failures=0, failing_since=None, rest_until=None)
        return
    log.info("Webhook %s, try %s to %s: %s", sending.delivery_id, sending.tries, sending.endpoint.pk, came.error)
    rest = {"rest_until": Now() + timedelta(seconds=came.retry_after)} if came.retry_after else {}
    endpoint.update(failures=F("failures") + 1, failing_since=Coalesce("failing_since", Now()), **rest)
    if came.status == 410:
        _mute(sending.endpoint, Muted.GONE)
    elif endpoint.filter(failures__gte=MUTE_FAILURES, failing_since__lte=Now() - MUTE_AFTER).exists():
        _mute(sending.endpoint, Muted.FAILING)


def _mute(endpoint: Endpoint, why: Muted) -> None:
    if webhooks.mute(endpoint.pk, why):
        log.warning("Webhook endpoint %s of user %s is muted: %s", endpoint.pk, endpoint.owner_id, why.label)


def tell_owners() -> int:
    """Mail the owners of endpoints that were muted, where mail is set up. Returns how many mails were sent."""
    if not settings.MAIL:
        return 0
    sent = 0
    for endpoint in Endpoint.objects.filter(tell_at__lte=Now()).exclude(owner__email="").select_related("owner"):
        mine = Endpoint.objects.filter(pk=endpoint.pk)
        if not mine.filter(tell_at__lte=Now()).update(tell_at=Now() + MAIL_AGAIN):
            continue
        try:
            send_mail(
                f"[Jobsite] Your webhook at {endpoint.host} is muted",
                f"It gets no more messages: {Muted(endpoint.muted).label}.\n\n"
                "What it misses is kept for 30 days. Once the host answers again, switch the webhook on and replay"
                f" what failed: {settings.SITE_URL}/my/webhooks/\n",
                None,
                [endpoint.owner.email],
            )
        except (OSError, ValueError) as error:  # smtplib's are OSErrors; an address that no mail can have is the other
            log.warning("The owner of webhook endpoint %s could not be told: %s", endpoint.pk, type(error).__name__)
            continue
        sent += mine.exclude(muted="").update(tell_at=None)
    return sent


deliver_in_background = Errand("webhooks", deliver).start
tell_in_background = Errand("mails about webhooks", tell_owners).start  # a delivery may be under way for ever
