"""Accounts and the ledger for the operator: to read, and to grant tokens with a reason. Nothing is edited."""

import logging
from uuid import uuid4

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.paginator import Page, Paginator
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.forms import BaseDialogForm
from unfold.paginator import InfinitePaginator
from unfold.widgets import UnfoldAdminBigIntegerFieldWidget, UnfoldAdminTextInputWidget

from . import desk, ledger
from .models import MOST, Account, Transaction

User = get_user_model()
log = logging.getLogger(__name__)


class GrantForm(BaseDialogForm):
    """How many tokens, and why. A form sent twice grants once: it carries its own idempotency key."""

    amount = forms.IntegerField(min_value=1, max_value=MOST, widget=UnfoldAdminBigIntegerFieldWidget)
    reason = forms.CharField(max_length=500, widget=UnfoldAdminTextInputWidget)
    key = forms.CharField(max_length=50, initial=lambda: f"admin:{uuid4()}", widget=forms.HiddenInput)


class GrantToUserForm(GrantForm):
    """The same for a user by name, who may have no account yet."""

    username = forms.CharField(widget=UnfoldAdminTextInputWidget)
    field_order = ["username", "amount", "reason"]

    def clean_username(self) -> str:
        name = self.cleaned_data["username"]
        if not User.objects.filter(**{User.USERNAME_FIELD: name}).exists():
            raise forms.ValidationError("There is no such user.")
        return name


class Uncounted(InfinitePaginator):
    """Pages of a list that nobody counts: one row more than a page holds is read, and says whether another follows."""

    template_name = "admin/tokens/pages.html"
    follows = False

    def page(self, number: int | str) -> Page:
        number = int(self.validate_number(number))
        start = (number - 1) * self.per_page
        rows = list(self.object_list[start : start + self.per_page + 1])
        self.follows = len(rows) > self.per_page
        return self._get_page(rows[: self.per_page], number, self)


class ReadOnly(ModelAdmin):
    """Rows are only read here, and their lists, which grow for ever, are not counted."""

    has_add_permission = has_change_permission = has_delete_permission = lambda self, request, obj=None: False
    show_full_result_count = False
    paginator = Uncounted

    def get_paginator(self, request, queryset, per_page, orphans=0, allow_empty_first_page=True):
        """The history of one row is short, and its page says how many lines it has."""
        pages = self.paginator if queryset.model is self.model else Paginator
        return pages(queryset, per_page, orphans, allow_empty_first_page)


@admin.register(Account)
class AccountAdmin(ReadOnly):
    """Balances, and the one thing that an operator may do: grant."""

    list_display = ["user", "balance", "history"]
    list_select_related = ["user"]
    search_fields = [f"user__{User.USERNAME_FIELD}", "user__email"]
    ordering = ["-user_id"]
    fields = readonly_fields = ["user", "balance", "history"]
    actions_list = ["grant_to_user"]
    actions_row = actions_detail = ["grant"]

    def has_grant_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("tokens.grant_tokens")

    @admin.display(description="Ledger")
    def history(self, account: Account) -> str:
        ledger_page = reverse("admin:tokens_transaction_changelist")
        return format_html('<a href="{}?account__exact={}">bookings</a>', ledger_page, account.pk)

    @action(
        description="Grant tokens",
        icon="toll",
        permissions=["grant"],
        dialog={"title": "Grant tokens", "form_class": GrantForm, "form_submit_text": "Grant"},
    )
    def grant(self, request: HttpRequest, form: GrantForm, object_id: str) -> HttpResponse:
        account = self.get_object(request, object_id)
        if account is None:
            raise Http404
        return self._grant(request, form, account)

    @action(
        description="Grant tokens to a user",
        icon="toll",
        permissions=["grant"],
        dialog={"title": "Grant tokens to a user", "form_class": GrantToUserForm, "form_submit_text": "Grant"},
    )
    def grant_to_user(self, request: HttpRequest, form: GrantToUserForm) -> HttpResponse:
        user = User.objects.get_by_natural_key(form.cleaned_data["username"])
        return self._grant(request, form, ledger.open_account(user.pk))

    def _grant(self, request: HttpRequest, form: GrantForm, account: Account) -> HttpResponse:
        wanted = form.cleaned_data
        home = HttpResponse(headers={"HX-Redirect": reverse("admin:tokens_account_changelist")})
        if not desk.may_book_for(request.user, account.pk):
            log.warning("User %s was refused a grant of %s to their own account", request.user.pk, wanted["amount"])
            self.message_user(request, f"Nothing was granted: {desk.OWN}", messages.ERROR)
            return home
        try:
            with transaction.atomic():
                booked = ledger.grant(account.pk, wanted["amount"], reason=wanted["reason"], key=wanted["key"])
                balance = f"balance {booked.balance_after - booked.amount} → {booked.balance_after}"
                said = f"Granted {booked.amount} tokens (booking {booked.pk}), {balance}: {booked.reason}"
                self.log_change(request, account, said)
        except ledger.LedgerError as refused:
            self.message_user(request, f"Nothing was granted: {refused}", messages.ERROR)
        else:
            self.message_user(request, f"{account.user}: {said}")
        return home


@admin.register(Transaction)
class TransactionAdmin(ReadOnly):
    """The ledger, newest first."""

    list_display = ["id", "created_at", "account", "kind", "amount", "balance_after", "reference", "reason"]
    list_select_related = ["account__user"]
    list_filter = ["kind", "created_at"]
    list_before_template = "admin/tokens/ledger_links.html"
    search_fields = ["reference", f"account__user__{User.USERNAME_FIELD}"]
