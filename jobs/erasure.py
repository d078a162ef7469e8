"""Forgetting a user: what is theirs goes, the ledger's lines stay, under a name that says nothing.

Every step may be done again, and the name is the last that goes: whatever ends this half-way, the same command finds
the user again and does the rest.
"""

import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from django.contrib.admin.models import LogEntry
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.db.models import QuerySet, Sum

from tokens.models import Account

from . import lifecycle, parts, people, uploads
from .errors import Refused
from .models import LIVE, ApiKey, Artifact, Endpoint, IdempotencyKey, Job, Letter, PartUpload, Preference, Upload
from .transactions import write

log = logging.getLogger(__name__)
User = get_user_model()


@dataclass(frozen=True)
class Belongings:
    """What a user has."""

    jobs: int
    live_jobs: int
    outputs: int
    uploads: int
    bytes: int  # of outputs and uploads
    keys: int
    webhooks: int

    def __bool__(self) -> bool:
        return any(vars(self).values())


def belongings(user) -> Belongings:
    """What forgetting this user would take away."""
    outputs, files = Artifact.objects.filter(job__owner=user), Upload.objects.filter(owner=user)
    return Belongings(
        jobs=Job.objects.filter(owner=user).count(),
        live_jobs=Job.objects.filter(owner=user, status__in=LIVE).count(),
        outputs=outputs.count(),
        uploads=files.count() + PartUpload.objects.filter(owner=user).count(),
        bytes=sum(rows.aggregate(size=Sum("bytes"))["size"] or 0 for rows in (outputs, files)),
        keys=ApiKey.objects.filter(owner=user).count(),
        webhooks=Endpoint.objects.filter(owner=user).count(),
    )


def is_last_admin(user) -> bool:
    """Whether nobody could administer the platform without this user."""
    admins = User.objects.filter(is_superuser=True, is_active=True)
    return admins.filter(pk=user.pk).exists() and not admins.exclude(pk=user.pk).exists()


def forget(user, *, by: str) -> Belongings:
    """Shut the user out, cancel and refund live jobs, delete jobs, files, keys, sessions, webhooks and letters, and
    take away name, mail address and password. Returns what is left: nothing, unless a job is in the way.

    Tokens are not touched: what is on the account stays there, as its lines say. Never call it in a transaction.
    """
    people.deactivate(user, cancel=True, by=by)
    for model in (ApiKey, Upload, Endpoint):  # the operators' log has what they were called
        _hush(model, model._default_manager.filter(owner=user).values_list("pk", flat=True))
    for model in (ApiKey, Endpoint, Letter, Preference):
        model._default_manager.filter(owner=user).delete()
    _end_sessions(user)
    for job_id in Job.objects.filter(owner=user).order_by("pk").values_list("pk", flat=True):
        try:
            lifecycle.delete(job_id, by=by)
        except Refused as refused:  # its file is an input of a job that was submitted just now
            log.warning("Job %s is in the way: %s", job_id, refused.detail)
    for upload in Upload.objects.filter(owner=user):
        try:
            uploads.remove(upload)
        except Refused as refused:
            log.warning("Upload %s is in the way: %s", upload.pk, refused.detail)
    for begun in PartUpload.objects.filter(owner=user):
        parts.give_up(begun)
    IdempotencyKey.objects.filter(owner=user).delete()
    left = belongings(user)
    if not left:
        _take_the_name(user)
        log.info("User %s was forgotten by %s", user.pk, by)
    return left


def _end_sessions(user) -> None:
    """Sessions name their user only inside, so each is opened."""
    mine = [row.pk for row in Session.objects.iterator() if row.get_decoded().get(SESSION_KEY) == str(user.pk)]
    Session.objects.filter(pk__in=mine).delete()


def _told(model) -> QuerySet[LogEntry]:
    return LogEntry.objects.filter(content_type=ContentType.objects.get_for_model(model))


def _hush(model, ids: Iterable) -> None:
    """Take from the operators' log how rows were called and what was said of them; that something was done stays."""
    names = [str(pk) for pk in ids]
    for start in range(0, len(names), 500):
        _told(model).filter(object_id__in=names[start : start + 500]).update(object_repr="", change_message="")


@write
def _take_the_name(user) -> None:
    """The last step."""
    name = f"{people.FORGOTTEN}{user.pk}"
    if User.objects.filter(username=name).exclude(pk=user.pk).exists():
        name += f"-{secrets.token_hex(4)}"
    _hush(User, [user.pk])
    _told(Account).filter(object_id=str(user.pk)).update(object_repr=f"account of {name}")
    user.groups.clear()
    user.user_permissions.clear()
    user.username, user.email, user.first_name, user.last_name = name, "", "", ""
    user.is_staff = user.is_superuser = user.is_active = False
    user.last_login = None
    user.set_unusable_password()
    user.save()
