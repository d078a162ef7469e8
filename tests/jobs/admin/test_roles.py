"""S32: what each role may reach in the admin, address by address, and that the API's scope agrees."""

import re

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, SolarSchedule

from jobs import keys, roles
from jobs.models import CleanupRun, Job, Pause, Policy
from tests.clients import ApiClient
from tokens.models import Account, Transaction

OPERATES = [
    *(f"jobs_job_{name}" for name in ("cancel_one", "retry_one", "fail_by_hand_one", "clean_up_stuck")),
    "jobs_job_bulk",
    "jobs_cleanuprun_clean_up_now",
    *(f"jobs_{model}_{verb}" for model in ("policy", "pause") for verb in ("add", "delete")),
]
BOOKS = ["tokens_account_grant", "tokens_account_grant_to_user"]
SCHEDULES = [f"{name}schedule" for name in ("interval", "crontab", "solar", "clocked")]
ADMINISTERS = [
    *("jobs_apikey_issue", "jobs_apikey_revoke_one", "auth_group_add", "auth_group_delete"),
    *(f"auth_user_{name}" for name in ("add", "password_change", "invite", "send_link", "shut_out", "let_in")),
    "auth_user_remove_sample_data",
    *(f"django_celery_beat_{model}_{verb}" for model in ("periodictask", *SCHEDULES) for verb in ("add", "delete")),
]
MAY = {
    "viewer": set(),
    "operator": {*OPERATES},
    "finance": {*BOOKS},
    "admin": {*OPERATES, *BOOKS, *ADMINISTERS},
}
DATA = {"_form_submitted": "True", "reason": "r", "amount": "5", "post": "yes", "username": "ann", "key": "k"}  # of any


@pytest.fixture
def person(user):
    """person("finance") → a member of staff in that group."""

    def make(role: str, **fields):
        who = user(f"the-{role}", tokens=0, **{"is_staff": True} | fields)
        who.groups.add(Group.objects.get(name=role))
        return who

    return make


@pytest.fixture
def rows(ann, submit):
    """A row of each model that has writes, so that their addresses exist."""
    submit()
    Pause.objects.create(queue="gpu", reason="new card")
    Policy.objects.create(kind="RENDER")
    Group.objects.create(name="our own")
    keys.issue(ann, "mine")
    CleanupRun.objects.create(by="test", dry_run=True, timeout=300, batch_size=1)
    CrontabSchedule.objects.create()
    SolarSchedule.objects.create(event="sunset", latitude=0, longitude=0)
    ClockedSchedule.objects.create(clocked_time=timezone.now())


def addresses() -> dict[str, str]:
    """Name → address of every page and action of the admin, from its URL table; the objects are the last rows."""
    reverse("admin:index")  # the pages are only looked for once the addresses are
    found = {}
    for model, page in admin.site._registry.items():
        row = model._default_manager.order_by("pk").last()
        for pattern in page.get_urls():
            if not pattern.name:
                continue  # the old addresses' redirect
            for args in ([], [row.pk] if row else []):
                try:
                    found[pattern.name] = reverse(f"admin:{pattern.name}", args=args)
                    break
                except NoReverseMatch:
                    continue
    return found


def everything() -> dict:
    """All rows of our tables, the users' and the log's."""
    models = [
        m
        for name in ("jobs", "tokens", "auth", "admin", "django_celery_beat")
        for m in apps.get_app_config(name).get_models()
    ]
    return {model: list(model._default_manager.order_by("pk").values()) for model in models}


def writes() -> dict[str, str]:
    known = addresses()
    models = [f"{model._meta.app_label}_{model._meta.model_name}" for model in admin.site._registry]
    reads = {"jobs_job_export", "jobs_job_export_ledger", "jobs_job_sql_view"}
    reads |= {f"{model}_{read}" for model in models for read in ("changelist", "change", "history")}
    return {name: address for name, address in known.items() if name not in reads}


@pytest.mark.parametrize("role", list(MAY))
def test_each_role_reaches_what_is_its_own_and_no_more(client, person, rows, role):
    """What is not only read is refused to all but those named: of a new page or action this fails until it is said."""
    client.force_login(person(role))
    reached = {name for name, address in writes().items() if client.get(address).status_code != 403}
    assert reached == MAY[role]


def test_a_viewer_may_open_all_and_writes_nothing_anywhere(client, person, rows):
    viewer, known = person("viewer"), addresses()
    assert all(viewer.has_perm(f"{m._meta.app_label}.view_{m._meta.model_name}") for m in admin.site._registry)
    client.force_login(viewer)
    before = everything()
    for address in known.values():
        client.post(address, DATA)
    assert everything() == before


def test_the_same_posts_by_an_admin_do_write(client, person, rows):
    client.force_login(person("admin"))
    before = everything()
    for name in ("jobs_job_cancel_one", "tokens_account_grant_to_user", "jobs_pause_delete", "jobs_apikey_revoke_one"):
        client.post(addresses()[name], DATA)
    after = everything()
    assert all(after[model] != before[model] for model in (Job, Transaction, Pause, keys.ApiKey, LogEntry))


@pytest.mark.parametrize(
    ("groups", "fields", "scope"),
    [
        ([], {"is_staff": True}, "user"),
        (["viewer"], {"is_staff": True}, "viewer"),
        (["finance", "operator"], {"is_staff": True}, "operator"),
        (["viewer", "admin"], {"is_staff": True}, "admin"),
        (["admin"], {"is_staff": False}, "user"),
        (["admin"], {"is_staff": True, "is_active": False}, "user"),
        ([], {"is_superuser": True}, "admin"),
    ],
)
def test_a_sessions_scope_is_the_strongest_of_its_groups(user, groups, fields, scope):
    who = user("somebody", tokens=0, **fields)
    who.groups.set(Group.objects.filter(name__in=groups))
    assert roles.strongest(roles.scopes_of(who)) == scope


def test_two_groups_give_what_both_may(person, client, ann, submit):
    who = person("finance")
    who.groups.add(Group.objects.get(name="operator"))
    client.force_login(who)
    order = {"user": ann.pk, "amount": 5, "reason": "sorry"}
    assert client.post("/api/admin/tokens/", order, content_type="application/json").status_code == 201
    assert client.post(f"/api/jobs/{submit().pk}/cancel/", {}, content_type="application/json").status_code == 200


@pytest.mark.parametrize(
    ("role", "sees", "acts"), [("viewer", 200, 404), ("finance", 200, 404), ("operator", 200, 200)]
)
def test_the_api_agrees_with_the_admin_about_a_session(client, person, submit, role, sees, acts):
    job = submit()
    client.force_login(person(role))
    assert client.get(f"/api/jobs/{job.pk}/").status_code == sees
    answer = client.post(f"/api/jobs/{job.pk}/cancel/", {}, content_type="application/json")
    assert answer.status_code in ({acts} | ({403} if acts == 404 else set()))
    in_admin = client.post(reverse("admin:jobs_job_cancel_one", args=[submit().pk]), {"_form_submitted": "True"})
    assert (in_admin.status_code == 200) == (acts == 200)


def test_the_customer_in_a_role_group_stays_outside(client, person, submit, bob):
    job = submit(owner=bob)
    client.force_login(person("admin", is_staff=False))
    assert client.get(f"/api/jobs/{job.pk}/").status_code == 404
    assert client.get(reverse("admin:index")).status_code == 302


def balance(who) -> int:
    return Account.objects.get(pk=who.pk).balance


def test_finance_gives_nothing_to_itself_and_the_log_names_who_gave_to_others(client, person, ann):
    who = person("finance")
    client.force_login(who)
    dialog = {"_form_submitted": "True", "reason": "sorry", "amount": "5"}
    grant = reverse("admin:tokens_account_grant_to_user")
    client.post(grant, dialog | {"username": who.username, "key": "a"})
    answer = ApiClient(who, "finance").send("/api/admin/tokens/", {"user": who.pk, "amount": 5, "reason": "mine"})
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert balance(who) == 0 and not LogEntry.objects.exists()
    client.post(grant, dialog | {"username": "ann", "key": "b"})
    ApiClient(who, "finance").send("/api/admin/tokens/", {"user": ann.pk, "amount": 7, "reason": "sorry twice"})
    assert balance(ann) == 1012
    by_key, by_hand = LogEntry.objects.order_by("-id")
    assert by_hand.user == by_key.user == who and by_key.object_id == str(ann.pk)
    assert "balance 1000 → 1005: sorry" in by_hand.change_message
    assert "balance 1005 → 1012: sorry twice" in by_key.change_message and "by key" in by_key.change_message


def test_an_operator_fails_no_job_of_their_own_by_hand(client, person, submit):
    from tokens import ledger

    who = person("operator")
    ledger.grant(who.pk, 100, reason="for the test")
    job = submit(owner=who)
    client.force_login(who)
    client.post(reverse("admin:jobs_job_fail_by_hand_one", args=[job.pk]), {"_form_submitted": "True", "reason": "r"})
    assert Job.objects.get(pk=job.pk).status == "QUEUED" and balance(who) == 90


def test_the_history_says_who_did_what_from_what_to_what(client, person, rows):
    who = person("operator")
    client.force_login(who)
    job, policy = Job.objects.get(), Policy.objects.get()
    client.post(
        reverse("admin:jobs_job_changelist") + "?status=QUEUED",
        {
            "action": "fail_by_hand",
            "_selected_action": [str(job.pk)],
            "confirmed": "yes",
            "reason": "disk broke",
            "_form_submitted": "True",
        },
    )
    client.post(
        reverse("admin:jobs_policy_change", args=[policy.pk]),
        {
            "kind": "RENDER",
            "price_percent": "150",
            "stale_action": policy.stale_action,
            "cancel_refund": policy.cancel_refund,
        },
    )
    shown = client.get(reverse("admin:admin_logentry_changelist")).content.decode()
    assert who.username in shown
    assert "QUEUED → FAILED, 10 tokens refunded. Reason: disk broke Filter: status=QUEUED" in shown
    assert "price_percent: none → 150" in shown
    history = client.get(reverse("admin:jobs_job_history", args=[job.pk])).content.decode()
    assert who.username in history and "disk broke" in history
    assert re.search(r"\b1\s+entry", history) and "?p=" not in history


def test_the_four_groups_are_laid_by_migrate_and_edited_by_nobody(client, op):
    client.force_login(op)
    group = Group.objects.get(name="viewer")
    assert not group.permissions.exclude(codename__startswith="view_").exists()
    page = reverse("admin:auth_group_change", args=[group.pk])
    assert client.post(page, {"name": "viewer", "permissions": []}).status_code == 403
    assert client.post(reverse("admin:auth_group_delete", args=[group.pk]), {"post": "yes"}).status_code == 403
    group.permissions.clear()
    roles.install()
    assert group.permissions.filter(codename="view_job").exists()


def test_a_password_change_leaves_no_password_in_the_history(client, op, ann):
    client.force_login(op)
    page = reverse("admin:auth_user_password_change", args=[ann.pk])
    new = {"password1": "rather-secret-9", "password2": "rather-secret-9", "usable_password": "true"}
    assert client.post(page, new).status_code == 302
    assert "rather-secret" not in LogEntry.objects.get().change_message
    assert "$" not in LogEntry.objects.get().change_message
