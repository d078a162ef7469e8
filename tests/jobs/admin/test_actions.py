"""What operators do to jobs: asked first, done through lifecycle, told with tokens, logged with a name."""

import uuid

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.urls import reverse

from jobs import lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.models import Job, JobEvent
from tokens.models import Account

LIST = "admin:jobs_job_changelist"
DIALOG = {"_form_submitted": "True"}


@pytest.fixture
def operator(user):
    """Staff who may see and operate jobs, and no more."""
    person = user("operator", tokens=0, is_staff=True)
    person.user_permissions.set(Permission.objects.filter(codename__in=["view_job", "change_job", "view_cleanuprun"]))
    return person


@pytest.fixture
def failed(running):
    def make(**params):
        lease = running(**params)
        lifecycle.fail(lease, JobError(ErrorCode.bad_input))
        return Job.objects.get(pk=lease.job_id)

    return make


def balance(person) -> int:
    return Account.objects.get(pk=person.pk).balance


def said(answer) -> str:
    return " | ".join(str(message) for message in get_messages(answer.wsgi_request))


def act(client, action: str, jobs, **more):
    chosen = [str(job.pk) for job in jobs]
    return client.post(reverse(LIST), {"action": action, "_selected_action": chosen, **more})


def test_nothing_is_done_before_the_confirmation(client, operator, submit, ann, failed):
    client.force_login(operator)
    ended, queued = failed(), submit()
    answer = act(client, "cancel", [queued, ended])
    page = answer.content.decode()
    assert "Cancel 1 of 2 chosen jobs: 10 tokens refunded" in page and "will be skipped" in page
    queued.refresh_from_db()
    assert queued.status == "QUEUED" and balance(ann) == 990


@pytest.mark.parametrize(
    ("action", "becomes", "code", "funds", "words"),
    [
        ("cancel", "CANCELED", "user_canceled", 1000, "Cancelled 1 job; 10 tokens refunded."),
        ("fail_by_hand", "FAILED", "manual_intervention", 1000, "Failed by hand 1 job; 10 tokens refunded."),
    ],
)
def test_live_jobs_end_refunded_and_ended_ones_are_skipped(
    client, operator, running, ann, failed, action, becomes, code, funds, words
):
    client.force_login(operator)
    lease, ended = running(), failed()
    live = Job.objects.get(pk=lease.job_id)
    answer = act(client, action, [live, ended], confirmed="yes", reason="disk broke", **DIALOG)
    live.refresh_from_db()
    assert (live.status, live.error_code, balance(ann)) == (becomes, code, funds)
    assert words in said(answer) and f"Skipped 1 job: {ended.pk} (The job is FAILED.)" in said(answer)
    event = JobEvent.objects.filter(job=live).latest("id")
    assert (event.by, event.tokens) == (f"user:{operator.pk}", 10)
    entry = LogEntry.objects.get()
    assert entry.user == operator and entry.object_id == str(live.pk) and "10 tokens refunded" in str(entry)
    with pytest.raises(lifecycle.LeaseLost):
        lifecycle.succeed(lease, [])


def test_failing_by_hand_needs_a_reason_which_the_owner_reads(client, operator, submit):
    client.force_login(operator)
    job = submit()
    for reason in ("", "   ", "x" * 1001):
        answer = act(client, "fail_by_hand", [job], confirmed="yes", reason=reason, **DIALOG)
        assert answer.status_code == 200 and Job.objects.get(pk=job.pk).status == "QUEUED"
    act(client, "fail_by_hand", [job], confirmed="yes", reason="<b>tired</b>", **DIALOG)
    assert Job.objects.get(pk=job.pk).error_message == "<b>tired</b>"


def test_a_retry_charges_again_and_says_so(client, operator, ann, failed, submit):
    client.force_login(operator)
    job, live = failed(), submit()
    answer = act(client, "retry", [job, live], confirmed="yes")
    job.refresh_from_db()
    assert (job.status, job.round, balance(ann)) == ("QUEUED", 2, 980)
    assert "Retried 1 job; 10 tokens charged." in said(answer) and "The job is QUEUED." in said(answer)


def test_a_retry_that_the_owner_cannot_pay_is_skipped(client, operator, failed, ann):
    job = failed(price=600)
    failed_too = failed(price=600)
    client.force_login(operator)
    answer = act(client, "retry", [job, failed_too], confirmed="yes")
    assert "Retried 1 job; 600 tokens charged." in said(answer)
    assert "This job costs 600 tokens." in said(answer) and balance(ann) == 400


def test_an_action_on_more_jobs_than_a_page_can_show_is_refused(client, operator, submit, monkeypatch):
    monkeypatch.setattr("jobs.admin.actions.MOST", 1)
    jobs = [submit(), submit()]
    client.force_login(operator)
    answer = act(client, "cancel", jobs[:1], confirmed="yes", select_across="1", index="0")
    assert "choose at most 1" in said(answer)
    assert set(Job.objects.values_list("status", flat=True)) == {"QUEUED"}


@pytest.mark.parametrize(
    ("button", "data", "becomes"),
    [
        ("cancel_one", {}, "CANCELED"),
        ("fail_by_hand_one", {"reason": "disk broke"}, "FAILED"),
    ],
)
def test_the_buttons_of_a_job_ask_on_get_and_act_on_post(client, operator, submit, ann, button, data, becomes):
    client.force_login(operator)
    job = submit()
    url = reverse(f"admin:jobs_job_{button}", args=[job.pk])
    assert "_form_submitted" in client.get(url).content.decode()
    assert Job.objects.get(pk=job.pk).status == "QUEUED"
    answer = client.post(url, DIALOG | data)
    assert answer["HX-Redirect"] == reverse("admin:jobs_job_change", args=[job.pk])
    assert Job.objects.get(pk=job.pk).status == becomes and balance(ann) == 1000
    again = client.post(url, DIALOG | data)
    assert "Skipped 1 job" in said(again) and balance(ann) == 1000


def test_a_page_offers_what_its_jobs_state_allows(client, operator, submit, failed):
    client.force_login(operator)
    for job, offered in ((failed(), {"retry_one"}), (submit(), {"cancel_one", "fail_by_hand_one"})):
        page = client.get(reverse("admin:jobs_job_change", args=[job.pk])).content.decode()
        for button in ("cancel_one", "fail_by_hand_one", "retry_one"):
            assert (reverse(f"admin:jobs_job_{button}", args=[job.pk]) in page) == (button in offered)


def test_unknown_ids_answer_with_the_list(client, operator):
    client.force_login(operator)
    for wrong in (uuid.uuid4(), "nonsense"):
        answer = client.post(reverse("admin:jobs_job_cancel_one", args=[wrong]), DIALOG)
        assert answer["HX-Redirect"] == reverse(LIST)


def test_without_the_change_permission_nothing_can_be_done(client, user, submit, ann):
    seer = user("seer", tokens=0, is_staff=True)
    seer.user_permissions.set(Permission.objects.filter(codename="view_job"))
    job = submit()
    for person, refused in ((seer, 403), (ann, 302)):
        client.force_login(person)
        for action in ("cancel", "retry", "fail_by_hand"):
            act(client, action, [job], confirmed="yes", reason="x", **DIALOG)
            url = reverse(f"admin:jobs_job_{action}_one", args=[job.pk])
            assert client.post(url, DIALOG | {"reason": "x"}).status_code == refused
        assert client.post(reverse("admin:jobs_job_clean_up_stuck"), DIALOG).status_code == refused
    job.refresh_from_db()
    assert job.status == "QUEUED" and not LogEntry.objects.exists()


def test_a_forged_post_without_the_csrf_token_is_refused(operator, submit):
    from django.test import Client

    strict = Client(enforce_csrf_checks=True)
    strict.force_login(operator)
    job = submit()
    assert strict.post(reverse("admin:jobs_job_cancel_one", args=[job.pk]), DIALOG).status_code == 403
    assert Job.objects.get(pk=job.pk).status == "QUEUED"
