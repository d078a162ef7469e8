"""API keys: made (the secret is shown once), seen, revoked."""

from datetime import timedelta

from django import forms
from django.contrib import messages
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache

from jobs import keys
from jobs.models import ApiKey, Scope

from ..errors import ErrorCode, Refused
from ..transactions import hold, write
from .base import action, page
from .jobs import ago
from .paging import Pages

KEYS_MOST = 100  # live ones of a user
DAYS = [("30", "30 days"), ("90", "90 days"), ("365", "a year"), ("", "until I revoke it")]


class KeyForm(forms.Form):
    """What a new key is called, may do, and how long it lives."""

    name = forms.CharField(max_length=80, help_text="What it is for: “laptop”, “nightly script”.")
    scope = forms.ChoiceField(choices=[], help_text="What it may do.")
    days = forms.ChoiceField(choices=DAYS, required=False, label="Valid for", initial="90")

    def __init__(self, user, data=None):
        super().__init__(data)
        may = Scope.choices if user.is_superuser else [(Scope.USER, Scope.USER.label)]  # a key acts as its owner
        self.fields["scope"].choices = may
        if len(may) == 1:
            self.fields["scope"].initial = Scope.USER


@write
def _issue(user, wanted) -> str:
    hold(user.pk)
    if ApiKey.objects.filter(owner=user, revoked_at=None).order_by()[:KEYS_MOST].count() >= KEYS_MOST:
        raise Refused(ErrorCode.rate_limited, f"There may be {KEYS_MOST} keys; revoke some.")
    until = timezone.now() + timedelta(days=int(wanted["days"])) if wanted["days"] else None
    return keys.issue(user, wanted["name"], wanted["scope"], expires_at=until)[1]


@page
@never_cache
def api_keys(request):
    """One's keys; a POST makes one and shows its secret in the answer, never again."""
    form, secret = KeyForm(request.user, request.POST if request.method == "POST" else None), ""
    mine = ApiKey.objects.filter(owner=request.user)
    if request.method == "POST" and form.is_valid():
        secret = _issue(request.user, form.cleaned_data)
        form = KeyForm(request.user)
    pages = Pages(mine, request)
    rows = [(key, ago(key.last_used_at) if key.last_used_at else "never") for key in pages.rows]
    context = {"section": "keys", "form": form, "secret": secret, "pages": pages, "rows": rows, "now": timezone.now()}
    return render(request, "web/keys.html", context)


@action("keys")
def revoke(request, key_id):
    """End one of one's keys for good."""
    key = ApiKey.objects.filter(owner=request.user, pk=key_id).first()
    if key is None:
        raise Refused(ErrorCode.not_found)
    keys.revoke(key)
    messages.success(request, f"The key {key.name} ({key.prefix}…) opens nothing any more.")
