"""Requests to outside services that work for a job: an intent row before each, and the sweep of those nobody needs.

A request is waited for by one attempt at a time; a later attempt of the same job takes it over. What no attempt waits
for (of jobs that were cancelled, ended or deleted) is cancelled by the run itself, and by the sweep where that failed.
"""

import logging
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db.models import Exists, F, OuterRef, QuerySet
from django.db.models.functions import Now
from django.utils.crypto import constant_time_compare, salted_hmac

from .engines import runpod_api
from .errors import JobError
from .faults import fault
from .models import LIVE, Job, RemoteCall, RemoteState
from .models.remote import WAITED_FOR
from .transactions import again_if_busy, write

log = logging.getLogger(__name__)

AT_ONCE = 50  # strays that one sweep asks about: RunPod takes 100 cancels in 10 s
SWEEP_SECONDS = 15.0  # after which a sweep leaves the rest to the next: the other watchmen wait behind it
KEPT = timedelta(days=30)  # rows of requests that are over


class Call:
    """One request as an engine sees it (`engines.remote.RemoteCall`), on behalf of one attempt."""

    def __init__(self, row: RemoteCall, *, resumed: bool):
        self.id, self.job_id, self.attempt = str(row.pk), str(row.job_id), row.attempt
        self.remote_id, self.resumed = row.remote_id, resumed
        self.webhook = webhook_url(row.pk) if settings.JOBSITE["RUNPOD_WEBHOOK"] else ""
        self._row = RemoteCall.objects.filter(pk=row.pk)
        self._mine = self._row.filter(attempt=row.attempt).exclude(state=RemoteState.ENDED)

    @again_if_busy
    def started(self, remote_id: str) -> None:
        fault("submit_remote.after_send")
        self.remote_id = remote_id
        self._row.update(remote_id=remote_id)  # whoever waits for it, and if only to cancel it
        self._mine.filter(state=RemoteState.INTENDED).update(state=RemoteState.STARTED)

    @again_if_busy
    def woken(self) -> bool:
        came = self._mine.filter(woken_at__isnull=False)
        return came.exists() and bool(came.update(woken_at=None))

    @again_if_busy
    def ended(self, outcome: str) -> None:
        self._mine.update(state=RemoteState.ENDED, outcome=outcome[:40])

    @again_if_busy
    def give_up(self) -> bool:
        return bool(self._mine.update(state=RemoteState.CANCEL_WANTED))


@write
def intend(job_id: uuid.UUID, attempt: int, provider: str, seconds: float) -> Call:
    """The row of a request that is about to be sent and will be over in `seconds`; committed when this returns.

    An earlier attempt's request of which nobody knows how it ended (its worker died, or the answer got lost) is taken
    over instead. IntegrityError if a later attempt waits for one: the caller's lease is lost.
    """
    known = RemoteCall.objects.select_for_update().filter(
        job_id=job_id, provider=provider, state__in=WAITED_FOR, attempt__lte=attempt
    )
    if (row := known.first()) is not None:
        row.attempt, row.ends_at = attempt, Now() + timedelta(seconds=seconds)
        row.save(update_fields=["attempt", "ends_at"])
        return Call(row, resumed=True)
    ends_at = Now() + timedelta(seconds=seconds)
    return Call(
        RemoteCall.objects.create(job_id=job_id, attempt=attempt, provider=provider, ends_at=ends_at), resumed=False
    )


def webhook_url(call_id: uuid.UUID) -> str:
    """Where RunPod calls for one request, and nobody else can: the address holds a secret of that request alone."""
    return f"{settings.SITE_URL}/api/runpod/{call_id}/{_secret(call_id)}/"


def _secret(call_id: uuid.UUID) -> str:
    return salted_hmac("jobs.remote", str(call_id), algorithm="sha256").hexdigest()


def wake(call_id: uuid.UUID, secret: str) -> bool:
    """A webhook came: whoever waits for the request looks at once. False if there is no such request, or the secret is
    another's, or its time is over.

    It is a nudge and nothing of its body is believed, so one that comes twice, late or forged changes no outcome.
    """
    if not constant_time_compare(secret, _secret(call_id)):
        return False
    known = RemoteCall.objects.filter(pk=call_id, ends_at__gt=Now())
    known.filter(state__in=WAITED_FOR).update(woken_at=Now())
    return known.exists()


def strays() -> QuerySet[RemoteCall]:
    """Requests that nobody waits for any more and that are not over, oldest first.

    A job that is tried again keeps its request: the next attempt takes it over.
    """
    live = Job.objects.filter(pk=OuterRef("job_id"), status__in=LIVE)
    open_ = RemoteCall.objects.exclude(state=RemoteState.ENDED)
    return open_.exclude(Exists(live), state__in=WAITED_FOR).order_by("created_at")


@dataclass
class Swept:
    """What a sweep did: strays that are over now, and those that are still there."""

    ended: int = 0
    left: int = 0


def sweep() -> Swept:
    """Cancel what nobody waits for. What cannot be cancelled now stays in `strays` and is tried again next time.

    A request whose answer got lost is looked for in the service's list. At its `ends_at` it is over by the limits that
    it was sent with. Rows of ended requests are deleted after 30 days.
    """
    report = Swept()
    RemoteCall.objects.filter(state=RemoteState.ENDED, ends_at__lt=Now() - KEPT).delete()
    over = strays().filter(ends_at__lt=Now()).values("pk")
    report.ended += RemoteCall.objects.filter(pk__in=over).update(state=RemoteState.ENDED, outcome="expired")
    left = list(strays().order_by("cancel_tries", "created_at")[:AT_ONCE])  # those that hang let others go first
    if not left:
        return report
    try:
        client = runpod_api.client(settings.JOBSITE)
    except JobError as error:
        strays().update(error=error.message[:200])
        report.left = len(left)
        return report
    until = time.monotonic() + SWEEP_SECONDS
    with client:
        for number, call in enumerate(left):
            if _cancelled(call, client):
                report.ended += 1
            else:
                report.left += 1
            if time.monotonic() >= until:
                report.left += len(left) - number - 1
                break
    if report.left:
        log.warning("%s requests to RunPod that nobody waits for could not be cancelled yet", report.left)
    return report


def _cancelled(call: RemoteCall, client: runpod_api.Client) -> bool:
    """Cancel one stray. False, with the reason in its row, if it may still be there."""
    row = RemoteCall.objects.filter(pk=call.pk, attempt=call.attempt).exclude(state=RemoteState.ENDED)
    if not row.update(state=RemoteState.CANCEL_WANTED, cancel_tries=F("cancel_tries") + 1):
        return True  # a new attempt took it over, or its own run saw it end
    try:
        remote_id = call.remote_id or client.find(str(call.pk))
        if remote_id is None:
            raise runpod_api.RunpodError("is not in RunPod's list")
        row.update(remote_id=remote_id)
        outcome = client.cancel(remote_id)
    except runpod_api.RunpodError as error:
        row.update(error=str(error)[:200])
        return False
    row.update(state=RemoteState.ENDED, outcome=outcome[:40], error="")
    log.info("Job %s: request %s, which nobody waits for, was cancelled on RunPod: %s", call.job_id, remote_id, outcome)
    return True
