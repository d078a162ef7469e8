"""The pages' addresses: `/` and below `/my/`. (`/jobs…` is the Studio's.)"""

from django.conf import settings
from django.contrib.auth.views import LogoutView
from django.urls import path
from django.views.decorators.cache import never_cache as fresh
from django.views.generic import RedirectView

from . import account, job, jobs, keys, sign_up, submit, tokens, webhooks

app_name = "web"
urlpatterns = [
    path("", RedirectView.as_view(pattern_name="web:jobs"), name="home"),
    path("favicon.ico", RedirectView.as_view(url=f"{settings.STATIC_URL}web/icon.svg")),
    path("sign-in/", fresh(account.SignIn.as_view()), name="sign-in"),
    path("sign-up/", sign_up.ask, name="sign-up"),
    path("sign-up/sent/", sign_up.sent, name="sign-up-sent"),
    path("sign-up/<str:token>/", sign_up.join, name="sign-up-confirm"),
    path("sign-out/", LogoutView.as_view(), name="sign-out"),
    # jobs
    path("my/jobs/", jobs.jobs, name="jobs"),
    path("my/jobs/new/", submit.new, name="new"),
    path("my/jobs/new/<str:kind>/", submit.new_kind, name="new-kind"),
    path("my/jobs/new/<str:kind>/price/", submit.price, name="price"),
    path("my/jobs/<uuid:job_id>/", job.job, name="job"),
    path("my/jobs/<uuid:job_id>/live/", job.live, name="job-live"),
    path("my/jobs/<uuid:job_id>/cancel/", job.cancel, name="job-cancel"),
    path("my/jobs/<uuid:job_id>/retry/", job.retry, name="job-retry"),
    path("my/jobs/<uuid:job_id>/delete/", job.delete, name="job-delete"),
    path("my/progress/<int:percent>.svg", job.icon, name="progress-icon"),
    # tokens and keys
    path("my/tokens/", tokens.tokens, name="tokens"),
    path("my/keys/", keys.api_keys, name="keys"),
    path("my/keys/<int:key_id>/revoke/", keys.revoke, name="key-revoke"),
    # webhooks
    path("my/webhooks/", webhooks.endpoints, name="webhooks"),
    path("my/webhooks/<uuid:webhook_id>/", webhooks.endpoint, name="webhook"),
    path("my/webhooks/<uuid:webhook_id>/rotate/", webhooks.rotate, name="webhook-rotate"),
    path("my/webhooks/<uuid:webhook_id>/test/", webhooks.test, name="webhook-test"),
    path("my/webhooks/<uuid:webhook_id>/switch/", webhooks.switch, name="webhook-switch"),
    path("my/webhooks/<uuid:webhook_id>/replay/", webhooks.replay_failed, name="webhook-replay"),
    path("my/webhooks/<uuid:webhook_id>/delete/", webhooks.delete, name="webhook-delete"),
    path("my/webhooks/<uuid:webhook_id>/<uuid:delivery_id>/", webhooks.delivery, name="webhook-delivery"),
    path("my/webhooks/<uuid:webhook_id>/<uuid:delivery_id>/replay/", webhooks.replay, name="webhook-delivery-replay"),
    # account
    path("my/account/", account.account, name="account"),
    path("my/password/", fresh(account.PasswordChange.as_view()), name="password-change"),
    path("my/password/changed/", fresh(account.PasswordChanged.as_view()), name="password-changed"),
    path("password-reset/", fresh(account.PasswordReset.as_view()), name="reset"),
    path("password-reset/sent/", fresh(account.ResetSent.as_view()), name="reset-sent"),
    path("password-reset/<uidb64>/<token>/", fresh(account.ResetConfirm.as_view()), name="reset-confirm"),
    path("password-reset/done/", fresh(account.ResetDone.as_view()), name="reset-done"),
]
