"""API keys: issued with the secret shown once, and revoked. Nothing else of a key can be changed."""

from datetime import timedelta

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from jobs import keys, roles
from jobs.models import ApiKey, Scope

from .base import FieldFilter, ReadOnly, ago, label, leave_dialog, question, when

User = get_user_model()


class IssueForm(BaseDialogForm):
    """Whose key, what it may do and for how long."""

    username = forms.CharField(label="User", widget=UnfoldAdminTextInputWidget)
    name = forms.CharField(max_length=80, help_text="What it is for.", widget=UnfoldAdminTextInputWidget)
    scope = forms.ChoiceField(choices=Scope.choices, initial=Scope.USER, widget=UnfoldAdminSelectWidget)
    days = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=3650,
        label="Valid for days",
        help_text="Empty: until it is revoked.",
        widget=UnfoldAdminIntegerFieldWidget,
    )

    def clean_username(self) -> str:
        name = self.cleaned_data["username"]
        if not User.objects.filter(**{User.USERNAME_FIELD: name}, is_active=True).exists():
            raise forms.ValidationError("There is no active user of that name.")
        return name

    def clean(self) -> dict:
        """A key is a way to act as its owner: only an admin may make more than a plain customer's."""
        wanted = super().clean()
        if {"username", "scope"} <= wanted.keys() and Scope.ADMIN not in roles.scopes_of(self.request.user):
            if wanted["scope"] != Scope.USER:
                self.add_error("scope", "Only an admin may issue keys of this scope.")
            owner = User.objects.get_by_natural_key(wanted["username"])
            if owner != self.request.user and (owner.is_staff or owner.is_superuser):
                self.add_error("username", "Only an admin may issue keys of other staff.")
        return wanted


class ScopeFilter(FieldFilter):
    title, parameter_name = "scope", "scope"
    options = staticmethod(lambda: Scope.values)


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnly):
    """Keys by their first characters. The secret itself is kept nowhere."""

    list_display = ["name", "prefix", "owner", "may", "state", "last_used", "created", "expires"]
    list_select_related = ["owner"]
    list_filter = [ScopeFilter]
    ordering = ["-id"]
    search_fields = ["name", "prefix", "owner__username"]
    fields = readonly_fields = ["name", "prefix", "owner", "may", "state", "last_used", "created", "expires"]
    actions = ["revoke"]
    actions_list = ["issue"]
    actions_detail = ["revoke_one"]

    def has_issue_permission(self, request: HttpRequest, obj=None) -> bool:
        return request.user.has_perm("jobs.add_apikey")

    @admin.display(description="State")
    def state(self, key: ApiKey) -> SafeString:
        if key.revoked_at:
            return label("revoked", "danger")
        if key.expires_at and key.expires_at <= timezone.now():
            return label("expired", "warning")
        return label("valid", "success")

    @admin.display(description="Scope")
    def may(self, key: ApiKey) -> SafeString:
        return format_html('<span title="{}">{}</span>', key.get_scope_display(), key.scope)

    def last_used(self, key: ApiKey) -> str:
        return ago(key.last_used_at)

    def created(self, key: ApiKey) -> str:
        return when(key.created_at)

    def expires(self, key: ApiKey) -> str:
        return when(key.expires_at)

    @action(
        description="Issue a key",
        icon="key",
        permissions=["issue"],
        dialog=question(
            "Issue an API key", "The key is shown once, here, and kept nowhere.", yes="Issue", form=IssueForm
        ),
    )
    def issue(self, request: HttpRequest, form: IssueForm) -> HttpResponse:
        """The secret is only in this answer, which replaces the dialog's form: in no message, cookie or log."""
        wanted = form.cleaned_data
        owner = User.objects.get_by_natural_key(wanted["username"])
        expires_at = timezone.now() + timedelta(days=wanted["days"]) if wanted["days"] else None
        with transaction.atomic():
            key, secret = keys.issue(owner, wanted["name"], wanted["scope"], expires_at=expires_at)
            self.log_addition(request, key, f"Issued to {owner}, scope {key.scope}.")
        return TemplateResponse(request, "admin/jobs/key_issued.html", {"key": key, "secret": secret})

    @admin.action(description="Revoke", permissions=["operate"])
    def revoke(self, request: HttpRequest, chosen: QuerySet[ApiKey]) -> None:
        self._revoke(request, list(chosen[:1000]))

    @action(
        description="Revoke",
        icon="key_off",
        permissions=["operate"],
        variant=ActionVariant.DANGER,
        dialog=question("Revoke this key?", "Requests with it are refused from now on.", yes="Revoke"),
    )
    def revoke_one(self, request: HttpRequest, form, object_id: str) -> HttpResponse:
        key = self.get_object(request, object_id)
        self._revoke(request, [key] if key else [])
        return leave_dialog("jobs_apikey_changelist")

    def _revoke(self, request: HttpRequest, chosen) -> None:
        revoked = 0
        for key in chosen:
            with transaction.atomic():
                if keys.revoke(key):
                    self.log_change(request, key, "Revoked.")
                    revoked += 1
        level = messages.SUCCESS if revoked else messages.WARNING
        self.message_user(request, f"Revoked {revoked} of {len(chosen)} keys; the others were revoked before.", level)
