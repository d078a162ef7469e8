"""Mail to users: a job has finished or failed, the balance is low. Only where EMAIL_URL is set.

The jobs' events and the ledger's lines are the outbox: `owe` reads them by a watermark and writes `Letter` rows, so
that settling a job and booking tokens cost nothing more. `deliver` sends them in a thread of the upkeep worker: a mail
server that is slow or away holds up neither a job nor a watchman. A mail is sent at least once; twice only if this
process, or the connection, ends between the server's taking it and its saying so, and then with the same Message-ID.
"""

import logging
import smtplib
import time
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db.models import F, Model, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce, Now
from django.template.loader import render_to_string
from django.urls import reverse

from tokens.models import Transaction

from . import outbox
from .background import Errand
from .errors import ErrorCode
from .models import About, JobEvent, Letter, Preference, Status, Watermark
from .words import span, tokens

log = logging.getLogger(__name__)

ABOUT = {Status.SUCCEEDED: About.FINISHED, Status.FAILED: About.FAILED}
BATCH = 200  # rows read at once
SECONDS = 4.0  # that one turn of `owe` may take: the upkeep worker has other watchmen to run
PAUSES = [60, 300, 1800, 7200, 21_600, 86_400]  # seconds after the first to the sixth failure
LEASE = timedelta(minutes=10)  # a try that nobody told the end of is made again after so long
KEEP = timedelta(days=7)
NO_CHOICE = Preference()  # what holds for those who chose nothing


# --- what is owed ---------------------------------------------------------------------------------------------------


def owe() -> int:
    """Turn what happened since the last time into letters. Returns how many were written.

    May be run by many at once and die anywhere: a letter exists once by its UNIQUE (about, source), and the watermark
    moves last. What happened while no mail was set up is never told.
    """
    if not settings.MAIL:
        Watermark.objects.filter(name__startswith="mail.").delete()
        return 0
    until = time.monotonic() + SECONDS
    told = _read("mail.jobs", JobEvent, "at", _ended(), _about_job, until)
    return told + _read("mail.balance", Transaction, "created_at", _crossed(), _about_balance, until)


def _read(name: str, table: type[Model], at: str, rows: QuerySet, letter: Callable, until: float) -> int:
    """Write the letters that `rows` of a table are worth, from the table's watermark on, and move that."""
    last = table._default_manager.order_by("-pk").values_list("pk", flat=True).first() or 0
    mark, began_now = Watermark.objects.get_or_create(name=name, defaults={"last": last})
    if began_now:
        return 0

    def write(batch: list) -> int:
        known = set(Letter.objects.filter(source__in=[row.pk for row in batch]).values_list("about", "source"))
        new = [made for made in map(letter, batch) if made and (made.about, made.source) not in known]
        return len(Letter.objects.bulk_create(new, ignore_conflicts=True))

    written, safe = outbox.read_on(rows, at, mark.last, write, batch=BATCH, until=until)
    Watermark.objects.filter(name=name, last__lt=safe).update(last=safe)
    return written


def _chosen(owner: str, name: str) -> Coalesce:
    """A preference of the owner, or what holds without one."""
    return Coalesce(F(f"{owner}__preference__{name}"), getattr(NO_CHOICE, name))


def _reachable(owner: str) -> Q:
    return Q(**{f"{owner}__is_active": True}) & ~Q(**{f"{owner}__email": ""})


def _ended() -> QuerySet[JobEvent]:
    """Ends of jobs that their owners want to be told of."""
    first = JobEvent.objects.filter(job=OuterRef("job"), round=OuterRef("round")).order_by("pk").values("at")[:1]
    ends = JobEvent.objects.select_related("job__owner").filter(_reachable("job__owner"), status__in=list(ABOUT))
    wanted = ends.alias(
        finished=_chosen("job__owner", "mail_finished"), failed=_chosen("job__owner", "mail_failed")
    ).filter(Q(status=Status.SUCCEEDED, finished=True) | Q(status=Status.FAILED, failed=True))
    return wanted.annotate(after=_chosen("job__owner", "mail_after"), began_at=Subquery(first))


def _crossed() -> QuerySet[Transaction]:
    """Bookings that took a balance below what its owner wants to be warned of, where it still is there."""
    lines = Transaction.objects.select_related("account__user").filter(_reachable("account__user"), amount__lt=0)
    return lines.annotate(limit=_chosen("account__user", "low_balance")).filter(
        balance_after__lt=F("limit"), balance_after__gte=F("limit") + F("amount"), account__balance__lt=F("limit")
    )


def _about_job(event: JobEvent) -> Letter | None:
    """None if the job took less time than its owner wants to be told of."""
    if event.at - event.began_at < timedelta(minutes=event.after):
        return None
    job, code = event.job, ErrorCode.__members__.get(event.code)
    about = ABOUT[Status(event.status)]
    words = {
        "job": job,
        "failed": about == About.FAILED,
        "took": span((event.at - event.began_at).total_seconds()),
        "error": code.row if code else None,
        "reason": event.message if code == ErrorCode.manual_intervention else "",  # others may name the user's files
        "money": _money(f"job:{job.pk}:{event.round}"),
        "link": settings.SITE_URL + reverse("web:job", args=[job.pk]),
    }
    return _letter(job.owner, about, event.pk, f"Your {job.kind} job {about}", "mail/job.txt", words)


def _about_balance(line: Transaction) -> Letter:
    words = {
        "line": line,
        "took": tokens(-line.amount),
        "balance": tokens(line.balance_after),
        "limit": tokens(line.limit),
        "link": settings.SITE_URL + reverse("web:tokens"),
    }
    subject = f"Your balance is {tokens(line.balance_after)}"
    return _letter(line.account.user, About.LOW, line.pk, subject, "mail/low_balance.txt", words)


def _letter(owner, about: About, source: int, subject: str, template: str, words: dict) -> Letter:
    words |= {"account": settings.SITE_URL + reverse("web:account")}
    line = " ".join(f"[Jobsite] {subject}".split())  # one line, whatever is in it
    return Letter(owner=owner, about=about, source=source, subject=line[:200], body=render_to_string(template, words))


def _money(reference: str) -> str:
    """What a job's round cost, from the ledger's lines."""
    charge = (
        Transaction.objects.filter(kind=Transaction.Kind.CHARGE, reference=reference).select_related("refund").first()
    )
    if charge is None:
        return "It was not charged."
    refund = getattr(charge, "refund", None)
    if refund is None:
        return f"{tokens(-charge.amount)} charged."
    cost = -charge.amount - refund.amount
    return f"{tokens(refund.amount)} back; it cost {tokens(cost) if cost else 'nothing'}."


# --- sending --------------------------------------------------------------------------------------------------------


def deliver() -> int:
    """Send what is due over one connection, until none is due or the server does not answer. Returns how many went."""
    server, sent = get_connection(), 0
    try:
        while letter := _take():
            try:
                server.open()
                _message(letter, server).send()
            except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError) as error:  # this one; others may pass
                server.close()
                _failed(letter, error, for_good=_is_for_good(error))
            except ValueError as error:  # an address that no mail can have
                _failed(letter, error, for_good=True)
            except OSError as error:  # smtplib's others, too
                _failed(letter, error, for_good=False)
                break
            else:
                sent += Letter.objects.filter(pk=letter.pk).update(sent_at=Now(), next_at=None, body="", error="")
    finally:
        server.close()
    return sent


_errand = Errand("letters", deliver)


def start() -> None:
    """Send what is due in the background; nothing if that is under way in this process, or no mail is set up."""
    if settings.MAIL:
        _errand.start()


def _take() -> Letter | None:
    """Compare-and-set: whoever raises `tries` makes the try."""
    due = Letter.objects.filter(next_at__lte=Now(), owner__is_active=True).exclude(owner__email="")
    for letter in due.order_by("next_at").select_related("owner")[:10]:
        mine = Letter.objects.filter(pk=letter.pk, tries=letter.tries, next_at__lte=Now())
        if mine.update(tries=F("tries") + 1, next_at=Now() + LEASE):
            letter.tries += 1
            return letter
    return None


def _message(letter: Letter, server) -> EmailMessage:
    headers = {
        "Message-ID": f"<{letter.pk}@{urlsplit(settings.SITE_URL).hostname}>",
        "Auto-Submitted": "auto-generated",  # RFC 3834: no machine answers it
    }
    return EmailMessage(letter.subject, letter.body, to=[letter.owner.email], headers=headers, connection=server)


def _is_for_good(error: smtplib.SMTPRecipientsRefused | smtplib.SMTPDataError) -> bool:
    """Whether the server said 5xx: it will say so again."""
    if isinstance(error, smtplib.SMTPDataError):
        return error.smtp_code >= 500
    return all(code >= 500 for code, _ in error.recipients.values())


def _failed(letter: Letter, error: Exception, *, for_good: bool) -> None:
    over = for_good or letter.tries > len(PAUSES)
    next_at = None if over else Now() + timedelta(seconds=PAUSES[letter.tries - 1])
    words = type(error).__name__ + (f" {code}" if (code := getattr(error, "smtp_code", "")) else "")
    Letter.objects.filter(pk=letter.pk, tries=letter.tries).update(next_at=next_at, error=words)
    log.warning("Letter %s to user %s, try %s: %s", letter.pk, letter.owner_id, letter.tries, words)


def sweep() -> int:
    """Delete letters older than KEEP. Returns how many."""
    return Letter.objects.filter(created_at__lt=Now() - KEEP).delete()[0]
