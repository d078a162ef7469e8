"""Webhooks: made (the secret is shown once), watched, tested, switched on and off, replayed."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache

from jobs import webhooks
from jobs.models import Delivery, Endpoint, Muted

from ..errors import ErrorCode, Refused
from .base import action, page
from .paging import Pages

TYPES = [("job.succeeded", "succeeds"), ("job.failed", "fails"), ("job.canceled", "is cancelled")]
TAGS = {"delivered": "SUCCEEDED", "owed": "QUEUED", "failed": "FAILED"}  # which colour of the jobs a state has


class WebhookForm(forms.Form):
    """Where messages go, and about what."""

    url = forms.CharField(
        label="Address", max_length=500, help_text="https; it answers 2xx to what it took. May hold a token of yours."
    )
    description = forms.CharField(max_length=80, required=False, help_text="What it is for.")
    types = forms.MultipleChoiceField(
        label="When a job",
        choices=TYPES,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        initial=[value for value, _ in TYPES],
        help_text="None means all.",
    )

    def clean_url(self) -> str:
        try:
            return webhooks.checked(self.cleaned_data["url"])
        except Refused as refused:
            raise forms.ValidationError(refused.detail) from refused


@page
@never_cache
def endpoints(request):
    """One's webhooks; a POST makes one and shows its secret in the answer, never again."""
    form, secret = WebhookForm(request.POST if request.method == "POST" else None), ""
    if request.method == "POST" and form.is_valid():
        _, secret = webhooks.create(request.user.pk, **form.cleaned_data)
        form = WebhookForm()
    context = {
        "section": "webhooks",
        "form": form,
        "secret": secret,
        "pages": Pages(webhooks.of(request.user), request),
    }
    return render(request, "web/webhooks.html", context)


def _mine(request, webhook_id) -> Endpoint:
    endpoint = webhooks.of(request.user).filter(pk=webhook_id).first()
    if endpoint is None:
        raise Refused(ErrorCode.not_found)
    return endpoint


@page
def endpoint(request, webhook_id):
    """One webhook: how it fares, and the log of what was sent. `state` filters the log. A POST changes it."""
    endpoint = _mine(request, webhook_id)
    if request.method != "POST":
        return _show(request, endpoint)
    form = WebhookForm(request.POST)
    if not form.is_valid():
        return _show(request, endpoint, form=form)
    webhooks.change(endpoint, **form.cleaned_data)
    messages.success(request, "Saved.")
    return redirect("web:webhook", webhook_id)


def _show(request, endpoint: Endpoint, secret: str = "", form: WebhookForm | None = None):
    state = request.GET.get("state", "")
    sent = Delivery.objects.filter(endpoint=endpoint).defer("body")
    pages = Pages(sent.filter(webhooks.STATES[state]) if state in webhooks.STATES else sent, request)
    context = {
        "section": "webhooks",
        "endpoint": endpoint,
        "muted": Muted(endpoint.muted).label if endpoint.muted else "",
        "types": [label for value, label in TYPES if not endpoint.types or value in endpoint.types],
        "old_until": endpoint.old_until if endpoint.old_until and endpoint.old_until > timezone.now() else None,
        "secret": secret,
        "form": form or WebhookForm(initial=_as_it_is(endpoint)),
        "pages": pages,
        "rows": [(row, TAGS[row.state], row.log[-1] if row.log else None) for row in pages.rows],
        "state": state,
        "states": sorted(webhooks.STATES),
    }
    return render(request, "web/webhook.html", context)


def _as_it_is(endpoint: Endpoint) -> dict[str, Any]:
    types = endpoint.types or [value for value, _ in TYPES]
    return {"url": endpoint.url, "description": endpoint.description, "types": types}


@action("webhook", takes_id=True)
@never_cache
def rotate(request, webhook_id):
    """A new secret, shown in this answer alone."""
    secret = webhooks.rotate(_mine(request, webhook_id))
    return _show(request, _mine(request, webhook_id), secret)


@action("webhook", takes_id=True)
def test(request, webhook_id):
    """Owe it a test message."""
    webhooks.send_test(_mine(request, webhook_id))
    messages.success(request, "A test message is on its way; it shows below within ten seconds.")


@action("webhook", takes_id=True)
def switch(request, webhook_id):
    """On if it is muted, off if it is not."""
    endpoint = _mine(request, webhook_id)
    webhooks.change(endpoint, enabled=bool(endpoint.muted))
    messages.success(request, "It is switched on." if endpoint.muted else "It is switched off.")


@action("webhook", takes_id=True)
def replay_failed(request, webhook_id):
    """Everything that was not delivered and is still kept, once more."""
    endpoint = _mine(request, webhook_id)
    number = webhooks.replay_failed(endpoint, timezone.now() - webhooks.KEEP - timedelta(days=1))
    messages.success(request, f"{number} message{'' if number == 1 else 's'} will be sent again.")


@action("webhooks")
def delete(request, webhook_id):
    """It goes, with its log."""
    _mine(request, webhook_id).delete()
    messages.success(request, "The webhook is gone.")


def _sent(request, webhook_id, delivery_id) -> Delivery:
    found = Delivery.objects.filter(endpoint=_mine(request, webhook_id), pk=delivery_id)
    row = found.select_related("endpoint").first()
    if row is None:
        raise Refused(ErrorCode.not_found)
    return row


@page
def delivery(request, webhook_id, delivery_id):
    """One message: what is sent, and each try."""
    row = _sent(request, webhook_id, delivery_id)
    context = {
        "section": "webhooks",
        "delivery": row,
        "number": webhooks.message_id(row.pk),
        "tag": TAGS[row.state],
        "tries": list(reversed(row.log)),
    }
    return render(request, "web/webhook_delivery.html", context)


@action("webhook-delivery", takes_id=True)
def replay(request, webhook_id, delivery_id):
    """This message once more."""
    webhooks.replay(_sent(request, webhook_id, delivery_id))
    messages.success(request, "It will be sent again within ten seconds.")
