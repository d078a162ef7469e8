"""The job: the row is the truth, a broker message only a nudge."""

import uuid

import uuid_utils
from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from .policy import CancelRefund


def uuid7() -> uuid.UUID:
    """A time-ordered id: new rows stay together in the index, and ids page by age."""
    return uuid.UUID(bytes=uuid_utils.uuid7().bytes)


def is_uuid(text: str) -> bool:
    """Whether `text` is an id of ours by its form."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


class Status(models.TextChoices):
    QUEUED = "QUEUED", "queued"
    RUNNING = "RUNNING", "running"
    RETRY = "RETRY", "waiting to be tried again"
    SUCCEEDED = "SUCCEEDED", "succeeded"
    FAILED = "FAILED", "failed"
    CANCELED = "CANCELED", "cancelled"


WAITING = [Status.QUEUED, Status.RETRY]
LIVE = [Status.QUEUED, Status.RETRY, Status.RUNNING]
FINAL = [Status.SUCCEEDED, Status.FAILED, Status.CANCELED]


class Job(models.Model):
    """One paid piece of work. Only `jobs.lifecycle` writes status, attempt, round, charge and the *_at fields."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="jobs", db_index=False)
    kind = models.CharField(max_length=20)
    tier = models.CharField(max_length=10, blank=True)  # the kind's size class, for prices and limits
    queue = models.CharField(max_length=20)
    priority = models.SmallIntegerField(default=0)  # higher first
    params = models.JSONField()
    metadata = models.JSONField(default=dict, blank=True)  # the owner's own words; we never read them

    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED)
    attempt = models.PositiveIntegerField(default=0)  # fencing token: raised by every claim, never goes back
    round = models.PositiveIntegerField(default=1)  # raised by retry(): a new charge, a new budget
    round_attempts = models.PositiveSmallIntegerField(default=0)  # claims of this round, failed or handed back
    failures = models.PositiveSmallIntegerField(default=0)  # failed attempts of this round
    max_attempts = models.PositiveSmallIntegerField(default=3)
    run_limit = models.FloatField()  # seconds that one attempt may take, as sold
    stall_limit = models.FloatField()  # seconds without progress or a sign of life

    price = models.PositiveIntegerField()  # whole tokens, as sold
    charge = models.ForeignKey(  # this round's; null when the price is 0. The ledger outlives the job.
        "tokens.Transaction", models.PROTECT, null=True, related_name="+", db_index=False
    )
    cancel_refund = models.CharField(  # as sold: what cancelling it while it runs gives back. Null, as before: full
        max_length=6, null=True, choices=CancelRefund
    )

    created_at = models.DateTimeField(db_default=Now())
    run_after = models.DateTimeField(null=True, db_default=Now())  # set exactly while QUEUED or RETRY
    started_at = models.DateTimeField(null=True)  # of the last attempt
    deadline_at = models.DateTimeField(null=True)  # started_at + run_limit, of the last attempt
    deadline_seconds = models.PositiveIntegerField(null=True)  # as asked for: a round that takes longer is cancelled
    cancel_at = models.DateTimeField(null=True)  # when that is, for this round; null: never
    heartbeat_at = models.DateTimeField(null=True)  # in no index: every beat would rewrite it
    finished_at = models.DateTimeField(null=True)
    slot = models.ForeignKey(  # the pool child that runs or last ran it
        "jobs.Slot", models.DO_NOTHING, null=True, related_name="+", db_constraint=False, db_index=False
    )
    progress = models.FloatField(default=0.0)  # 0.0 to 1.0, of the last attempt
    stage = models.CharField(max_length=40, blank=True)
    error_code = models.CharField(max_length=40, blank=True)  # an ErrorCode's name
    error_message = models.CharField(max_length=1000, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(name="job_ended_iff_final", condition=Q(finished_at=None) ^ Q(status__in=FINAL)),
            models.CheckConstraint(name="job_due_iff_waiting", condition=Q(run_after=None) ^ Q(status__in=WAITING)),
            models.CheckConstraint(name="job_progress_is_a_fraction", condition=Q(progress__gte=0, progress__lte=1)),
            models.CheckConstraint(name="job_charged_iff_priced", condition=Q(price=0) ^ Q(charge__isnull=False)),
            models.CheckConstraint(
                name="job_no_error_if_succeeded", condition=~Q(status="SUCCEEDED") | Q(error_code="")
            ),
            models.CheckConstraint(name="job_within_budget", condition=Q(failures__lte=F("max_attempts"))),
        ]
        indexes = [
            models.Index(  # lifecycle.claim, dispatch.top_up
                "queue", F("priority").desc(), "run_after", name="job_due", condition=Q(run_after__isnull=False)
            ),
            models.Index(fields=["started_at"], name="job_running", condition=Q(status="RUNNING")),  # cleanup
            models.Index(fields=["owner", "-id"], name="job_of_owner"),  # the owner's list, paged by key
            models.Index(fields=["status", "-id"], name="job_by_status"),  # the operator's list
            models.Index(  # what ended when: the dashboard and its samples, which read nothing but this
                fields=["status", "finished_at", "kind", "error_code", "price"],
                name="job_ended",
                condition=Q(finished_at__isnull=False),
            ),
            models.Index(  # JOBS_PER_USER
                fields=["owner"], name="job_active_of_owner", condition=Q(finished_at__isnull=True)
            ),
            models.Index(  # lifecycle.late
                fields=["cancel_at"], name="job_late", condition=Q(cancel_at__isnull=False, finished_at__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class JobInput(models.Model):
    """One input of a job, resolved at submit. PROTECT and the foreign keys keep a needed file from being deleted."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="inputs")
    reference = models.CharField(max_length=200)  # as written in params
    artifact = models.ForeignKey("jobs.Artifact", models.SET_NULL, null=True, related_name="used_by")
    upload = models.ForeignKey("jobs.Upload", models.SET_NULL, null=True, related_name="used_by")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "reference"], name="input_once_per_job")]
