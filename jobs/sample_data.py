"""Sample data: something to see on a fresh platform. `sample_story` lays it; here it is found, named and removed.

All of it belongs to users of its own, who are marked by a group, so it goes the way that forgotten users go.
"""

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db.models import Min, QuerySet

from . import erasure
from .models import CleanupRun, Sample

User = get_user_model()

GROUP = "sample data"  # its members are the users; it goes last, so what was broken off is found again
NAMES = "sample-"  # what their names begin with: everybody else is told apart without a statement
BY = "sample data"  # who did it, in events and reports
STAYS = (
    "The ledger is append-only: its lines stay, under names that say nothing, and so do what /metrics has counted"
    " and the log of what operators did."
)


def here() -> bool:
    """Whether sample data is on this platform."""
    return Group.objects.filter(name=GROUP).exists()


def users() -> QuerySet:
    """The users that all of it belongs to."""
    return User.objects.filter(groups__name=GROUP).order_by("pk")


def is_sample(user) -> bool:
    """Whether this user is one of them; a statement only for who is called so."""
    return user.get_username().startswith(NAMES) and user.groups.filter(name=GROUP).exists()


def remove(*, by: str) -> str:
    """Forget the users with jobs, files, keys and webhooks, and take away the figures and reports. Returns what was
    done, in words; every step may be done again. Never call it in a transaction."""
    laid_at = users().aggregate(at=Min("date_joined"))["at"]
    if laid_at:  # before them there was no job, so older figures tell of nothing else
        Sample.objects.filter(at__lt=laid_at).delete()
    CleanupRun.objects.filter(by=BY).delete()
    left = [erasure.forget(user, by=by) for user in users()]
    if any(left):  # a live job of somebody else's cannot need their files; something was submitted just now
        return "Some jobs are still in the way; remove the sample data once more."
    Group.objects.filter(name=GROUP).delete()
    return f"The sample data is gone: {len(left)} users were forgotten, with all that was theirs. {STAYS}"
