"""What `web/base.html` shows around every page."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from jobs import queries, roles, sample_data
from jobs.models import Scope
from jobsite import __version__


@dataclass(frozen=True)
class Section:
    """A line of the navigation; `name` is a route of `jobs.web.urls`."""

    name: str
    label: str

    @property
    def url(self) -> str:
        return reverse(f"web:{self.name}")


SECTIONS = (
    Section("jobs", "Jobs"),
    Section("new", "New job"),
    Section("tokens", "Tokens"),
    Section("keys", "API keys"),
    Section("webhooks", "Webhooks"),
    Section("account", "Account"),
)


def page(request: HttpRequest) -> dict[str, Any]:
    """Context processor: the navigation, the version, and what is read once, if a template shows it: the balance, and
    whether there is sample data (for the admin) or this is a user of it."""
    return {
        "sections": SECTIONS,
        "version": __version__,
        "balance": cache(lambda: queries.balance(request.user.pk)),
        "sample_data": cache(sample_data.here),
        "sample_removable": cache(lambda: Scope.ADMIN in roles.scopes_of(request.user)),
        "sample_user": cache(lambda: sample_data.is_sample(request.user)),
        "sample_stays": sample_data.STAYS,
    }
