"""Signing up, where SIGN_UP=open: ask for a letter, and by its link choose a password. Elsewhere it is not there."""

from collections.abc import Callable
from functools import wraps

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.forms import SetPasswordMixin, UsernameField
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from .. import people, sign_up, throttles


class Ask(forms.Form):
    """Says nothing of what is taken."""

    username = UsernameField(label="User name", max_length=150)
    email = forms.EmailField(label="E-mail address", max_length=254)

    def clean(self):
        if not self.errors:
            people.new(self.cleaned_data["username"], email=self.cleaned_data["email"], unique=False)


class Join(SetPasswordMixin, forms.Form):
    """By the letter's link: whose address it is may hear that a name is taken."""

    username = UsernameField(label="User name", max_length=150)
    password1, password2 = SetPasswordMixin.create_password_fields()

    def __init__(self, email: str, *args, **options):
        self.email = email
        super().__init__(*args, **options)

    def clean(self):
        if "username" in self.cleaned_data:
            user = sign_up.draft(self.cleaned_data["username"], self.email)
            self.validate_password_for_user(user)
        self.validate_passwords()


def _page(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """A page of strangers: not there unless sign-up is open, nothing for who is signed in."""

    @wraps(view)
    def answer(request: HttpRequest, **kwargs) -> HttpResponse:
        if not sign_up.is_open():
            raise Http404
        return redirect("web:jobs") if request.user.is_authenticated else view(request, **kwargs)

    return never_cache(answer)


@_page
def ask(request: HttpRequest) -> HttpResponse:
    """Name and address; a letter goes there, and the answer is the same whatever is known of either."""
    form = Ask(request.POST or None)
    if request.method == "POST" and form.is_valid():
        name, email = form.cleaned_data["username"], form.cleaned_data["email"]
        throttles.attempt(request, "sign-up", email.casefold()).count()
        sign_up.ask(name, email)
        return redirect("web:sign-up-sent")
    return render(request, "web/auth/sign_up.html", {"form": form})


@_page
def sent(request: HttpRequest) -> HttpResponse:
    return render(request, "web/auth/sign_up_sent.html")


@sensitive_post_parameters()
@_page
def join(request: HttpRequest, token: str) -> HttpResponse:
    """The letter's link: looking changes nothing, a password makes the account."""
    found = sign_up.asked(token)
    if found is None:
        return render(request, "web/auth/sign_up_confirm.html", {"form": None}, status=404)
    name, email = found
    if request.method == "POST":
        throttles.attempt(request, "join", email.casefold()).count()
    form = Join(email, request.POST or None, initial={"username": name})
    if request.method == "POST" and form.is_valid():
        try:
            user = sign_up.accept(form.cleaned_data["username"], email, form.cleaned_data["password1"])
        except ValidationError as error:  # taken meanwhile
            form.add_error("username", error.message_dict["username"])
        else:
            messages.success(request, f"Your account is made, {user.get_username()}. Sign in.")
            return redirect(settings.LOGIN_URL)
    return render(request, "web/auth/sign_up_confirm.html", {"form": form, "email": email})
