"""Telling the operator: each condition once when it begins, hourly while it lasts, once when it is over."""

import asyncio
import json
import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import send_mail
from django.db.models import F, Q, Sum
from django.db.models.functions import Now
from django.utils import timezone

from tokens.models import Transaction

from . import cleanup, policies, upkeep
from .engines import outbound
from .models import Alert, CleanupRun, Tick

log = logging.getLogger(__name__)

AGAIN = timedelta(hours=1)  # a condition that lasts is told this often
WINDOW = timedelta(hours=1)  # of refunds, and of cleanups that found much
DEADLINE = 5.0  # seconds for the webhook, all in all: the tick must not wait
LEASE = timedelta(minutes=1)
WEBHOOK, EMAIL = "webhook", "email"


def check() -> int:
    """Look at every condition and tell what changed. Returns how many messages were raised.

    Two upkeep workers send one message: it is raised by compare-and-set. What a channel did not take is sent to it
    again at the next check.
    """
    raised = 0
    for code, detail in conditions().items():
        Alert.objects.get_or_create(code=code)
        raised += _raise(code, detail) if detail else _end(code)
    dead: set[str] = set()
    for alert in Alert.objects.exclude(owed=[]):
        _send(alert, dead)
    return raised


def conditions() -> dict[str, str]:
    """Code → what is wrong, in a sentence; empty if nothing is."""
    own = settings.JOBSITE
    since = Now() - WINDOW
    stuck = cleanup.find_stuck(policies.patience()).count()
    found = CleanupRun.objects.filter(started_at__gte=since, dry_run=False).order_by("-found").first()
    most = max(stuck, found.found if found else 0)
    last = CleanupRun.objects.filter(dry_run=False).order_by("-pk").first()
    refunds = Transaction.objects.filter(reverses__isnull=False, created_at__gte=since)
    refunded = refunds.aggregate(total=Sum("amount"))["total"] or 0
    tick = Tick.objects.annotate(now=Now()).filter(name="cleanup_stuck_jobs").first()
    period = upkeep.schedule()["cleanup_stuck_jobs"][1]
    cleaned = [tick.ran_at or tick.since if tick else None, last.started_at if last else None]
    age = (timezone.now() - max(filter(None, cleaned), default=timezone.now())).total_seconds()
    return {
        "many_stuck_jobs": f"{most} jobs are stuck, or were within the hour." if most > own["ALERT_STUCK_JOBS"] else "",
        "cleanup_failures": f"The last cleanup could not settle {last.failed} jobs." if last and last.failed else "",
        "refund_volume": f"{refunded} tokens were refunded within the hour."
        if refunded > own["ALERT_REFUND_TOKENS"]
        else "",
        "cleanup_not_running": f"No cleanup for {age:.0f} s; its period is {period:g} s."
        if age > 2 * period + 1
        else "",
        "clock": _clock(tick.now if tick else None),
    }


def _clock(theirs: datetime | None) -> str:
    """What is wrong with the clocks: on SQLite there is but this host's, which may have jumped."""
    if cleanup.clock.distrusted():
        return "This host's clock jumped; for a while nothing is reaped."
    apart = (theirs - timezone.now()).total_seconds() if theirs else 0.0
    return f"The database's clock is {apart:+.0f} s from this host's." if abs(apart) > cleanup.JUMP else ""


def channels() -> list[str]:
    """The channels that are set up, beside the log."""
    own = settings.JOBSITE
    return [name for name, set_up in ((WEBHOOK, own["ALERT_WEBHOOK_URL"]), (EMAIL, own["ALERT_EMAIL"])) if set_up]


def _raise(code: str, detail: str) -> int:
    due = Q(began_at=None) | Q(sent_at__lt=Now() - AGAIN)
    known = Alert.objects.filter(due, code=code).first()
    if known is None:
        return 0
    began = {} if known.began_at else {"began_at": Now()}
    mine = Alert.objects.filter(code=code, messages=known.messages).update(
        messages=F("messages") + 1, detail=detail[:300], sent_at=Now(), owed=_owed(known), **began
    )
    if mine:
        log.error("ALERT %s: %s", code, detail)
    return mine


def _end(code: str) -> int:
    known = Alert.objects.filter(code=code, began_at__isnull=False).first()
    if known is None:
        return 0
    mine = Alert.objects.filter(code=code, messages=known.messages).update(
        began_at=None, ended_at=Now(), messages=F("messages") + 1, sent_at=Now(), owed=_owed(known)
    )
    if mine:
        log.warning("ALERT %s is over", code)
    return mine


def _owed(alert: Alert) -> list[str]:
    """The channels that are to get the next message."""
    snoozed = alert.snoozed_until is not None and alert.snoozed_until > timezone.now()
    return [] if snoozed else channels()


def _send(alert: Alert, dead: set[str]) -> None:
    """Give the last message to the channels that are owed it; whoever takes the row first sends it.

    A channel that fails is added to `dead`, and none in there is tried: each costs DEADLINE seconds. Should this
    process die, the message is sent again after LEASE.
    """
    row = Alert.objects.filter(pk=alert.pk, messages=alert.messages)
    free = Q(sent_by=None) | Q(sent_by__lt=Now())
    if not row.filter(free, owed=alert.owed).update(sent_by=Now() + LEASE):
        return
    state, owed = "begun" if alert.began_at else "over", list(alert.owed)
    for channel in [name for name in alert.owed if name not in dead]:
        try:
            if channel == WEBHOOK:
                asyncio.run(_post({"alert": alert.code, "state": state, "detail": alert.detail}))
            else:
                _mail(alert, state)
        except (OSError, outbound.Refused, outbound.Failed) as error:  # smtplib's are OSErrors
            log.warning("Alert %s could not be sent by %s: %s", alert.code, channel, type(error).__name__)
            dead.add(channel)
        else:
            owed.remove(channel)
            row.update(owed=owed)
    row.update(sent_by=None)


async def _post(message: dict[str, str]) -> None:
    """POST the message to ALERT_WEBHOOK_URL, wherever the operator has it. outbound.Failed if it is not taken."""
    body = json.dumps({**message, "site": settings.SITE_URL}).encode()
    url, headers = settings.JOBSITE["ALERT_WEBHOOK_URL"], {"Content-Type": "application/json"}
    answer = await outbound.post(url, body, headers, seconds=DEADLINE, most=1024, trusted=outbound.ANYWHERE)
    if not 200 <= answer.status < 300:
        raise outbound.Failed(f"Answered {answer.status}.")


def _mail(alert: Alert, state: str) -> None:
    words = alert.detail if state == "begun" else f"It is over. It was: {alert.detail}"
    send_mail(
        f"[Jobsite] {alert.code}: {state}",
        f"{words}\n\n{settings.SITE_URL}/admin/jobs/alert/\n",
        None,
        [settings.JOBSITE["ALERT_EMAIL"]],
    )
