"""The account: who one is, and the password. Sign-in, change and reset are Django's own views in our layout."""

from urllib.parse import urlsplit

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import get_user_model
from django.contrib.auth import views as auth
from django.http import Http404
from django.shortcuts import redirect, render
from django.urls import reverse_lazy

from .. import sign_up, throttles
from ..models import Preference
from .base import page


class AboutMe(forms.ModelForm):
    """The user's name, and what they are told by mail."""

    first_name = forms.CharField(max_length=150, required=False)
    last_name = forms.CharField(max_length=150, required=False)

    class Meta:
        model = Preference
        fields = ["first_name", "last_name", "mail_finished", "mail_failed", "mail_after", "low_balance"]


@page
def account(request):
    """Who is signed in, and what they can change about it. The address for mail is the operator's to change: who has
    it can have a new password sent there."""
    user = request.user
    chosen = Preference.objects.filter(pk=user.pk).first() or Preference(owner=user)
    form = AboutMe(
        request.POST or None,
        instance=chosen,
        initial={"first_name": user.first_name, "last_name": user.last_name},
    )
    if request.method == "POST" and form.is_valid():
        wanted = dict(form.cleaned_data)
        names = {name: wanted.pop(name) for name in ("first_name", "last_name")}
        Preference.objects.update_or_create(owner=user, defaults=wanted)  # sent twice at once, the second waits
        get_user_model().objects.filter(pk=user.pk).update(**names)
        messages.success(request, "Saved.")
        return redirect("web:account")
    return render(request, "web/account.html", {"section": "account", "form": form, "mail": settings.MAIL})


class SignIn(auth.LoginView):
    """Name and password."""

    template_name = "web/auth/sign_in.html"
    redirect_authenticated_user = True
    next_page = "web:jobs"
    extra_context = {"can_reset": lambda: bool(settings.MAIL), "may_sign_up": sign_up.is_open}


class PasswordChange(auth.PasswordChangeView):
    """A new password for whoever knows the old one; all other sessions end."""

    template_name = "web/auth/password_change.html"
    success_url = reverse_lazy("web:password-changed")
    extra_context = {"section": "account"}


class PasswordChanged(auth.PasswordChangeDoneView):
    template_name = "web/auth/password_changed.html"
    extra_context = {"section": "account"}


class _ByMail:
    """Only where mail can be sent; else these pages are not there."""

    def dispatch(self, *args, **kwargs):
        if not settings.MAIL:
            raise Http404
        return super().dispatch(*args, **kwargs)


class PasswordReset(_ByMail, auth.PasswordResetView):
    """Mails a link to whoever has that address; the answer is the same if nobody has."""

    template_name = "web/auth/reset.html"
    email_template_name = "web/auth/reset_mail.txt"
    subject_template_name = "web/auth/reset_subject.txt"
    success_url = reverse_lazy("web:reset-sent")
    _site = urlsplit(settings.SITE_URL)  # never the Host header, which the asker chooses
    extra_email_context = {"domain": _site.netloc, "protocol": _site.scheme, "site_name": "Jobsite"}

    def form_valid(self, form):
        throttles.attempt(self.request, "reset", form.cleaned_data["email"].casefold()).count()
        return super().form_valid(form)


class ResetSent(_ByMail, auth.PasswordResetDoneView):
    template_name = "web/auth/reset_sent.html"


class ResetConfirm(auth.PasswordResetConfirmView):
    """The link of the mail, or of an invitation: once, for PASSWORD_RESET_TIMEOUT."""

    template_name = "web/auth/reset_confirm.html"
    success_url = reverse_lazy("web:reset-done")


class ResetDone(auth.PasswordResetCompleteView):
    template_name = "web/auth/reset_done.html"
