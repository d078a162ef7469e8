"""Every page of the admin opens, for those who may; lists do not count, and rows of users' words are text."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from jobs import cleanup, keys, lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.models import Artifact, Job, Slot, Tick, Upload
from jobsite import __version__

PAYLOAD = "<script>alert('x')</script><img src=x onerror=alert(1)>"


@pytest.fixture
def seer(user):
    """Staff who may see everything and change nothing."""
    person = user("seer", tokens=0, is_staff=True)
    person.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    return person


@pytest.fixture
def full(ann, running, submit):
    """At least one row of each model, with hostile words wherever a user's words may stand."""
    done = running()
    stored = Artifact(attempt=1, name="dish.txt", key="k", bytes=2048, sha256="0" * 64, content_type="text/plain")
    stored.job_id = done.job_id
    lifecycle.succeed(done, [stored])
    lifecycle.fail(running(), JobError(ErrorCode.bad_input, PAYLOAD))
    Job.objects.update(metadata={"note": PAYLOAD}, stage=PAYLOAD[:40])
    Upload.objects.create(owner=ann, name=PAYLOAD, key="u", bytes=1, sha256="0" * 64, content_type="video/mp4")
    keys.issue(ann, PAYLOAD)
    Slot.objects.create(host=PAYLOAD, boot_id="b", pid=1, process_started=1, queues=[PAYLOAD])
    lease = running()
    Job.objects.filter(pk=lease.job_id).update(heartbeat_at="2026-01-01T00:00:00Z")
    cleanup.cleanup_stuck_jobs(by="beat", dry_run=True)
    cleanup.cleanup_stuck_jobs(by="beat")
    return Job.objects.get(pk=done.job_id)


def pages() -> list[str]:
    """The list, the first row's page and (where rows may be added) the empty form of every registered model."""
    found = [reverse("admin:index")]  # and with it all pages are known
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        found.append(reverse(f"{name}_changelist"))
        found += [reverse(f"{name}_change", args=[row.pk]) for row in model._default_manager.order_by("pk")[:3]]
    return found


def test_every_page_opens_and_shows_users_words_as_text(client, op, full):
    client.force_login(op)
    for page in pages():
        answer = client.get(page)
        assert answer.status_code == 200, page
        assert PAYLOAD not in answer.content.decode() and "<img src=x" not in answer.content.decode(), page


@pytest.mark.parametrize(("rows", "links"), [(25, [set(), {"Previous"}]), (26, [{"Next"}, {"Previous"}])])
def test_a_list_leads_to_the_next_page_where_there_is_one(client, op, submit, rows, links):
    client.force_login(op)
    for _ in range(rows):
        submit()
    for number, expected in enumerate(links, 1):
        shown = client.get(reverse("admin:jobs_job_changelist"), {"p": number}).content.decode()
        assert {name for name in ("Previous", "Next") if f">{name}</a>" in shown} == expected


@pytest.mark.django_db(transaction=True)
def test_a_list_that_the_database_does_not_give_is_a_page_that_says_so(op):
    """PostgreSQL ends a statement after 30 seconds (here sooner); either database may be away."""
    client = Client(raise_request_exception=False)
    client.force_login(op)

    def slow(execute, sql, params, many, context):
        if 'FROM "jobs_job"' not in sql:
            return execute(sql, params, many, context)
        if connection.vendor == "sqlite":
            raise OperationalError("disk I/O error")
        return execute("SELECT pg_sleep(20)", None, False, context)

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET statement_timeout = 100")
    with connection.execute_wrapper(slow):
        answer = client.get(reverse("admin:jobs_job_changelist"))
    connection.close()
    assert answer.status_code == 503 and answer["Retry-After"]
    assert ErrorCode.database_unavailable.row.sentence in answer.content.decode()
    assert ("gave up after 30 seconds" in answer.content.decode()) == (connection.vendor == "postgresql")
    assert client.get(reverse("admin:jobs_job_changelist")).status_code == 200


def test_each_page_names_the_version_at_its_end(client, op):
    client.force_login(op)
    for page in ("/admin/", reverse("admin:jobs_job_changelist"), "/my/jobs/"):
        assert f"Jobsite {__version__}" in client.get(page).content.decode().rpartition("<footer")[2], page


@pytest.mark.parametrize("model", ["periodictask", "intervalschedule", "crontabschedule", "clockedschedule"])
def test_beats_forms_open_in_the_admins_dress(client, op, model):
    client.force_login(op)
    page = client.get(reverse(f"admin:django_celery_beat_{model}_add"))
    assert page.status_code == 200
    assert all(isinstance(admin.site._registry[m], admin.ModelAdmin) for m in admin.site._registry)
    assert all("unfold" in str(type(a).__mro__) for a in admin.site._registry.values())


def test_beats_task_form_offers_our_tasks_and_saves(client, op):
    from django_celery_beat.models import PeriodicTask

    client.force_login(op)
    task = PeriodicTask.objects.get(name="cleanup_stuck_jobs")
    page = reverse("admin:django_celery_beat_periodictask_change", args=[task.pk])
    assert "jobs.monitor_heartbeats" in client.get(page).content.decode()
    form = {"name": task.name, "task": task.task, "interval": task.interval_id, "args": "[]", "kwargs": "{}"}
    answer = client.post(page, form | {"headers": "{}", "queue": "upkeep"})
    assert answer.status_code == 302
    task.refresh_from_db()
    assert not task.enabled and task.task == "jobs.cleanup_stuck_jobs"


def test_who_may_only_see_gets_no_action_and_no_download(client, seer, full):
    client.force_login(seer)
    for page in (reverse("admin:jobs_job_changelist"), reverse("admin:jobs_job_change", args=[full.pk])):
        shown = client.get(page).content.decode()
        assert "Fail by hand" not in shown and "Clean up stuck" not in shown and "/outputs/" not in shown
    assert "dish.txt" in shown


@pytest.mark.parametrize(
    "name", ["jobs_job", "jobs_cleanuprun", "jobs_slot", "jobs_tick", "jobs_apikey", "jobs_upload"]
)
def test_customers_are_sent_to_the_login_and_staff_without_rights_refused(client, ann, user, name):
    client.force_login(ann)
    assert client.get(reverse(f"admin:{name}_changelist")).status_code == 302
    client.force_login(user("clerk", tokens=0, is_staff=True))
    assert client.get(reverse(f"admin:{name}_changelist")).status_code == 403


def test_rows_can_neither_be_added_nor_edited_nor_deleted(client, op, full):
    client.force_login(op)
    for name, pk in [("jobs_job", full.pk), ("jobs_tick", Tick.objects.first().pk)]:
        assert client.get(reverse(f"admin:{name}_add")).status_code == 403
        assert client.post(reverse(f"admin:{name}_change", args=[pk]), {"status": "FAILED"}).status_code == 403
        assert client.post(reverse(f"admin:{name}_delete", args=[pk]), {"post": "yes"}).status_code == 403
    full.refresh_from_db()
    assert full.status == "SUCCEEDED"


def test_the_job_list_costs_the_same_for_one_and_for_many_and_counts_nothing(client, op, submit):
    client.force_login(op)
    page = reverse("admin:jobs_job_changelist")
    submit()
    client.get(page)
    with CaptureQueriesContext(
        connection,
    ) as one:
        client.get(page)
    for _ in range(30):
        submit()
    with CaptureQueriesContext(connection) as many:
        answer = client.get(page)
    assert len(one) == len(many)
    assert not [query for query in many if "COUNT(" in query["sql"] and "jobs_job" in query["sql"]]
    assert len(answer.context["cl"].result_list) == 25
    assert len(client.get(page, {"p": 2}).context["cl"].result_list) == 6


def test_a_job_is_found_by_id_by_its_beginning_and_by_owner(client, op, submit, bob):
    mine, other = submit(), submit(owner=bob)
    client.force_login(op)

    def found(text: str) -> set:
        return {
            job.pk for job in client.get(reverse("admin:jobs_job_changelist"), {"q": text}).context["cl"].result_list
        }

    assert found(str(mine.pk)) == found(mine.pk.hex.upper()) == {mine.pk}
    beginning = str(mine.pk)[:8]  # of one minute's jobs: mostly of both
    assert found(beginning) == {pk for pk in (mine.pk, other.pk) if str(pk).startswith(beginning)}
    assert found("bob") == {other.pk}
    assert found("nobody") == found("' OR 1=1") == set()


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"status": "FAILED"}, {"FAILED"}),
        ({"status": "FAILED", "error_code": "bad_input"}, {"FAILED"}),
        ({"error_code": "ffmpeg_error"}, set()),
        ({"kind": "RENDER"}, set()),
        ({"kind": "KITCHEN", "queue": "cpu", "status": "SUCCEEDED"}, {"SUCCEEDED"}),
        ({"created_at_from_0": "2020-01-01", "created_at_from_1": "00:00", "status": "FAILED"}, {"FAILED"}),
        ({"created_at_to_0": "2020-01-01", "created_at_to_1": "00:00"}, set()),
        ({"created_at_to_0": "2020-01-01"}, set()),
    ],
)
def test_the_list_is_filtered(client, op, full, query, wanted):
    client.force_login(op)
    shown = client.get(reverse("admin:jobs_job_changelist"), query).context["cl"].result_list
    assert {job.status for job in shown} == wanted


@pytest.mark.parametrize("address", ["auth_user_change", "auth_user_send_link", "jobs_apikey_revoke_one"])
def test_an_address_with_no_key_in_it_is_no_error_of_ours(client, op, address):
    client.force_login(op)
    for ask in (client.get, client.post):
        assert ask(reverse(f"admin:{address}", args=["x"]), {"_form_submitted": "True"}).status_code in (200, 302, 404)


def test_an_unreadable_moment_is_no_error_of_ours(client, op):
    client.force_login(op)
    answer = client.get(reverse("admin:jobs_job_changelist"), {"created_at_from_0": "soon"})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/jobs/job/?e=1")


def test_a_jobs_page_shows_its_attempts_its_bookings_and_its_output(client, op, full, running):
    client.force_login(op)
    shown = client.get(reverse("admin:jobs_job_change", args=[full.pk])).content.decode()
    assert f"job:{full.pk}:1" in shown and "-10" in shown
    assert reverse("job-output", args=[full.pk, "dish.txt"]) in shown and "2.0 KiB" in shown
    again = running()
    lifecycle.fail(again, JobError(ErrorCode.bad_input, "clips.1 is no clip"))
    lifecycle.retry(again.job_id, by=f"user:{op.pk}")
    shown = client.get(reverse("admin:jobs_job_change", args=[again.job_id])).content.decode()
    assert "clips.1 is no clip" in shown and f"job:{again.job_id}:2" in shown and "+10" in shown
    assert "Retried: round 2" in shown and f"user:{op.pk}" not in shown  # the timeline is in words, people by name
    assert ErrorCode.bad_input.row.sentence in shown and "charged again for round 2" in shown  # why it cost what it did
