"""Users, groups and the log of what operators did. Users are invited, shut out and let in by actions."""

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.admin import GroupAdmin as PlainGroupAdmin
from django.contrib.auth.admin import UserAdmin as PlainUserAdmin
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.forms import AdminPasswordChangeForm, BaseDialogForm, UserChangeForm, UserCreationForm
from unfold.widgets import (
    UnfoldAdminEmailInputWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from jobs import people, sample_data
from jobs.models import Scope
from jobs.roles import ROLES, scopes_of
from tokens.models import MOST

from .base import Audited, ReadOnly, TimeFilter, leave_dialog, question, when, who
from .dashboard import figures

admin.site.unregister([User, Group])


class InviteForm(BaseDialogForm):
    """Who comes, as what, with how many tokens."""

    username = forms.CharField(max_length=150, widget=UnfoldAdminTextInputWidget)
    email = forms.EmailField(
        required=False, widget=UnfoldAdminEmailInputWidget, help_text="Empty: the link is shown to you instead."
    )
    role = forms.ChoiceField(
        required=False,
        choices=[("", "customer"), *((role.value, role.value) for role in ROLES)],
        widget=UnfoldAdminSelectWidget,
    )
    tokens = forms.IntegerField(min_value=0, max_value=MOST, initial=0, widget=UnfoldAdminIntegerFieldWidget)

    def clean(self) -> dict:
        """Staff is invited by admins alone, tokens are given by those who may grant."""
        wanted = super().clean()
        if wanted.get("role") and not _is_admin(self.request):
            self.add_error("role", "Only an admin may invite staff.")
        if wanted.get("tokens") and not self.request.user.has_perm("tokens.grant_tokens"):
            self.add_error("tokens", "You may not grant tokens.")
        if not self.errors:
            try:
                people.new(wanted["username"], email=wanted["email"], role=wanted["role"])
            except ValidationError as wrong:
                self.add_error(None, wrong)
        return wanted


class ShutOutForm(BaseDialogForm):
    """What becomes of the live jobs."""

    cancel_jobs = forms.BooleanField(
        required=False,
        label="Cancel live jobs",
        help_text="Else they go on and stay paid.",
        widget=UnfoldBooleanWidget,
    )


@admin.register(User)
class UserAdmin(PlainUserAdmin, Audited):
    """A role takes two things: "staff status" and a group. Only admins give them, or change staff. Balances are under
    Accounts."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "email", "roles", "is_active", "is_staff", "last_login"]
    actions_list = ["invite"]
    actions_detail = ["send_link", "shut_out", "let_in"]

    def get_queryset(self, request: HttpRequest):
        return super().get_queryset(request).prefetch_related("groups")

    @admin.display(description="Role")
    def roles(self, user: User) -> str:
        return " ".join((["superuser"] if user.is_superuser else []) + [group.name for group in user.groups.all()])

    def get_readonly_fields(self, request: HttpRequest, obj=None):
        fields = list(super().get_readonly_fields(request, obj))
        if not _is_admin(request):
            fields += ["is_superuser", "is_staff", "groups", "user_permissions"]
        return fields

    def has_change_permission(self, request: HttpRequest, obj=None) -> bool:
        staff = obj is not None and (obj.is_staff or obj.is_superuser)
        return super().has_change_permission(request, obj) and (_is_admin(request) or not staff)

    def has_delete_permission(self, request: HttpRequest, obj=None) -> bool:
        """Users are shut out or forgotten: the ledger and the log of what was done keep rows that need theirs."""
        return False

    def has_operate_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return self.has_change_permission(request, self.get_object(request, object_id) if object_id else None)

    def has_invite_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("auth.add_user")

    @action(
        description="Invite a user",
        icon="person_add",
        permissions=["invite"],
        dialog=question(
            "Invite a user",
            "They choose their password by a link that works once, for three days.",
            yes="Invite",
            form=InviteForm,
        ),
    )
    def invite(self, request: HttpRequest, form: InviteForm) -> HttpResponse:
        wanted = form.cleaned_data
        user = people.add(
            wanted["username"],
            email=wanted["email"],
            role=wanted["role"],
            tokens=wanted["tokens"],
            by=who(request),
        )
        self.log_addition(request, user, f"Invited with {wanted['tokens']} tokens.")
        return self._link(request, user)

    @action(
        description="Send a link to choose a password",
        icon="link",
        permissions=["operate"],
        dialog=question(
            "Send a link to choose a password?", "Earlier links work until one of them was used.", yes="Send"
        ),
    )
    def send_link(self, request: HttpRequest, form, object_id: str) -> HttpResponse:
        user = self._there(request, object_id)
        self.log_change(request, user, "Made a link to choose a password.")
        return self._link(request, user)

    @action(
        description="Shut out",
        icon="block",
        permissions=["operate"],
        variant=ActionVariant.DANGER,
        dialog=question(
            "Shut this user out?", "Keys, sessions and streams of theirs end at once.", yes="Shut out", form=ShutOutForm
        ),
    )
    def shut_out(self, request: HttpRequest, form: ShutOutForm, object_id: str) -> HttpResponse:
        user = self._there(request, object_id)
        go_on, cancelled = people.deactivate(user, cancel=form.cleaned_data["cancel_jobs"], by=who(request))
        said = f"Shut out; of the live jobs {cancelled} were cancelled, {go_on} go on and stay paid."
        return self._done(request, user, said)

    @action(
        description="Let in again",
        icon="lock_open",
        permissions=["operate"],
        dialog=question("Let this user in again?", "Password and keys work as before.", yes="Let in"),
    )
    def let_in(self, request: HttpRequest, form, object_id: str) -> HttpResponse:
        user = self._there(request, object_id)
        people.activate(user, by=who(request))
        return self._done(request, user, "Let in again.")

    def get_urls(self):
        """The page's own address comes before `<object_id>/`, which takes anything."""
        remove = self.admin_site.admin_view(remove_sample_data)
        return [path("sample-data/remove/", remove, name="auth_user_remove_sample_data"), *super().get_urls()]

    def _there(self, request: HttpRequest, object_id: str) -> User:
        user = self.get_object(request, object_id)
        if user is None:
            raise Http404
        return user

    def _link(self, request: HttpRequest, user: User) -> HttpResponse:
        """The link is only in this answer, which replaces the dialog's form: in no message, cookie or log."""
        invited = people.invite(user)
        return TemplateResponse(request, "admin/jobs/user_invited.html", {"invited": invited, "person": user})

    def _done(self, request: HttpRequest, user: User, said: str) -> HttpResponse:
        self.log_change(request, user, said)
        self.message_user(request, f"{user}: {said}", messages.SUCCESS)
        return leave_dialog("auth_user_change", user.pk)


def remove_sample_data(request: HttpRequest) -> HttpResponse:
    """The banner's button, for admins: all of it, at once; the next page says what was done."""
    if not _is_admin(request):
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    done = sample_data.remove(by=who(request)) if sample_data.here() else "No sample data is here."
    LogEntry.objects.create(
        user_id=request.user.pk,
        content_type=ContentType.objects.get_for_model(User),
        object_repr="sample data",
        action_flag=CHANGE,
        change_message=done,
    )
    figures.forget()
    messages.info(request, done)
    return redirect("admin:index")


@admin.register(Group)
class GroupAdmin(PlainGroupAdmin, Audited):
    """The four roles are the platform's (each migrate lays them anew); groups of your own are yours to edit."""

    def has_change_permission(self, request, obj=None) -> bool:
        return super().has_change_permission(request, obj) and not _is_role(obj)

    def has_delete_permission(self, request, obj=None) -> bool:
        return super().has_delete_permission(request, obj) and not _is_role(obj)


def _is_admin(request: HttpRequest) -> bool:
    return Scope.ADMIN in scopes_of(request.user)


def _is_role(group: Group | None) -> bool:
    return group is not None and group.name in ROLES


@admin.register(LogEntry)
class LogEntryAdmin(ReadOnly):
    """Who did what, to which row, from what to what, and why. Append-only here; kept until the user is deleted."""

    list_display = ["at", "user", "what", "said"]
    list_select_related = ["user", "content_type"]
    list_filter = [("action_time", TimeFilter)]
    search_fields = ["user__username", "object_id"]
    search_help_text = "a user's name, or the id of the row that was acted on"
    ordering = ["-id"]
    fields = readonly_fields = ["at", "user", "what", "said"]

    @admin.display(description="At")
    def at(self, entry: LogEntry) -> str:
        return when(entry.action_time)

    @admin.display(description="Row")
    def what(self, entry: LogEntry) -> SafeString | str:
        named = f"{entry.content_type.name if entry.content_type else ''} {entry.object_repr}"
        address = entry.get_admin_url()
        return format_html('<a href="{}" class="text-link">{}</a>', address, named) if address else named

    @admin.display(description="What was done")
    def said(self, entry: LogEntry) -> str:
        return str(entry.get_change_message() or entry.get_action_flag_display())
