"""Each page as its owner sees it, and that it is not there for anybody else. All without JavaScript."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from jobs import keys, lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.models import ApiKey, Job, Preference, Status
from jobs.web.jobs import about
from tokens.models import Account

PAGES = ["jobs", "new", "tokens", "keys", "webhooks", "account", "password-change"]


def text(answer) -> str:
    return answer.content.decode()


def web(name: str, *args) -> str:
    return reverse(f"web:{name}", args=args)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_wants_a_session_and_shows_its_owner_the_balance(client, ann_web, name):
    turned_away = client.get(web(name))
    assert turned_away.status_code == 302 and turned_away["Location"].startswith(web("sign-in"))
    answer = ann_web.get(web(name))
    assert answer.status_code == 200 and '<b id="balance">1000</b> tokens' in text(answer)
    assert "no-cache" in answer["Cache-Control"] and "private" in answer["Cache-Control"]


def test_the_first_address_leads_to_the_jobs(ann_web):
    assert ann_web.get("/")["Location"] == web("jobs")


def test_jobs_are_listed_by_filters_and_pages(ann_web, bob_web, submit, bob):
    for _ in range(26):
        submit(price=1)
    lifecycle.cancel(submit().pk, by="test")
    others = submit(owner=bob)
    first = text(ann_web.get(web("jobs")))
    assert first.count("<tr>") == 26 and str(others.pk) not in first and "Older" in first
    older = first.partition('<a href="?before=')[2].partition('"')[0]
    assert text(ann_web.get(f"{web('jobs')}?before={older}")).count("<tr>") == 3
    assert text(ann_web.get(web("jobs") + "?status=CANCELED")).count("<tr>") == 2
    assert text(ann_web.get(web("jobs") + "?status=nonsense&kind=%00&before=x")).count("<tr>") == 26
    assert text(ann_web.get(web("jobs") + "?kind=RENDER")).count("<tr>") == 0


@pytest.mark.parametrize(
    ("kind", "params", "shown"),
    [
        ("RENDER", {"prompt": "rain"}, "rain"),
        ("RENDER", {"prompt": "雨の港"}, "雨の港"),
        ("RENDER", {"prompt": "x" * 200}, "x" * 90 + "…"),
        ("ENHANCE", {"image": "upload:0", "tier": "2K"}, ""),  # a choice is no text of one's own
        ("STITCH", {"clips": ["upload:0", "upload:1"]}, "2 files"),
        ("KITCHEN", {"code": "internal_error"}, ""),  # its default
        ("LONGGONE", {"prompt": "rain"}, ""),
        ("RENDER", {"prompt": 5, "negative_prompt": {"a": 1}}, ""),  # imported: another system may have taken anything
    ],
)
def test_what_tells_a_job_from_its_neighbours(kind, params, shown):
    assert about(Job(kind=kind, params=params)) == shown


def test_jobs_are_searched_by_the_words_of_the_admin_and_only_ones_own(ann_web, submit, bob):
    first, others = submit(), submit(owner=bob)
    Job.objects.filter(pk__in=[first.pk, others.pk]).update(metadata={"order": "A 17"})
    lifecycle.cancel(submit().pk, by="test")
    for line, rows in {
        'meta.order:"A 17"': 1,
        "status:canceled code:user_canceled": 1,
        f"id:{first.pk}": 1,
        f"id:{others.pk}": 0,
        "user:bob": 0,
        "bob": 0,
    }.items():
        page = text(ann_web.get(web("jobs"), {"search": line}))
        assert page.count('id="job-') == rows and f"job-{others.pk}" not in page, line
    assert "No job is like that" in text(ann_web.get(web("jobs"), {"search": "user:bob"}))
    wrong = text(ann_web.get(web("jobs"), {"search": "status:<b>red</b>"}))
    assert 'role="alert">&lt;b&gt;red' in wrong and "<b>red" not in wrong
    assert 'role="alert">There is no qualifier colour:' in text(ann_web.get(web("jobs"), {"search": "colour:red"}))


@pytest.mark.parametrize("name", ["job", "job-live"])
def test_somebody_elses_job_is_not_there(bob_web, submit, name):
    assert bob_web.get(web(name, submit().pk)).status_code == 404


@pytest.mark.parametrize("name", ["job-cancel", "job-retry", "job-delete"])
def test_nobody_acts_on_somebody_elses_job(bob_web, submit, name):
    job = submit()
    assert bob_web.post(web(name, job.pk)).status_code == 404
    assert bob_web.get(web(name, job.pk)).status_code == 405
    assert Job.objects.get(pk=job.pk).status == Status.QUEUED


def test_a_waiting_job_says_its_place_and_what_a_cancel_gives_back(ann_web, submit, ann):
    submit()
    job = submit()
    page = text(ann_web.get(web("job", job.pk)))
    assert "No worker serves the queue cpu at the moment." in page and "Cancel (10 tokens back)" in page
    assert '<noscript><meta http-equiv="refresh"' in page
    ended = ann_web.post(web("job-cancel", job.pk), follow=True)
    assert ended.redirect_chain == [(web("job", job.pk), 302)] and "Cancelled: 10 tokens back." in text(ended)
    assert Account.objects.get(pk=ann.pk).balance == 990
    again = text(ann_web.post(web("job-cancel", job.pk), follow=True))
    assert "Cancelled" in again and Account.objects.get(pk=ann.pk).balance == 990


def test_a_running_job_shows_stage_and_progress_and_only_the_rest_as_it_changes(ann_web, running):
    lease = running()
    lifecycle.beat(lease, progress=0.42, stage="cooking")
    page = text(ann_web.get(web("job", lease.job_id)))
    assert 'value="42"' in page and "cooking" in page and "<title>42% · KITCHEN · Jobsite</title>" in page
    seen = page.partition("?seen=")[2].partition('"')[0]
    live = ann_web.get(web("job-live", lease.job_id), {"seen": seen})
    assert "HX-Retarget" not in live and "<title>42%" in text(live) and "<h1>" not in text(live)
    lifecycle.fail(lease, JobError(ErrorCode.ffmpeg_error, "clips.0 is cut."))
    live = ann_web.get(web("job-live", lease.job_id), {"seen": seen})
    assert live["HX-Retarget"] == "#job" and "<h1>" in text(live)


def test_a_failed_job_says_why_what_to_do_and_what_a_retry_costs(ann_web, running, ann):
    lease = running()
    lifecycle.fail(lease, JobError(ErrorCode.ffmpeg_error, "clips.0 is cut."))
    page = text(ann_web.get(web("job", lease.job_id)))
    row = ErrorCode.ffmpeg_error.row
    assert row.sentence in page and "clips.0 is cut." in page and row.advice in page and "ffmpeg_error" in page
    assert "Retry (costs 10 tokens)" in page
    assert "<dd>-10</dd>" in page and "<dd>+10</dd>" in page
    answer = ann_web.post(web("job-retry", lease.job_id), follow=True)
    assert "Queued again. 10 tokens charged." in text(answer) and Account.objects.get(pk=ann.pk).balance == 990
    refused = ann_web.post(web("job-retry", lease.job_id), follow=True)
    assert "The job is QUEUED." in text(refused) and Account.objects.get(pk=ann.pk).balance == 990


def test_outputs_are_shown_as_text_and_offered(ann_web, succeeded):
    job = succeeded(b'{"a": "<script>alert(1)</script>"}', "result.json", "application/json")
    page = text(ann_web.get(web("job", job.pk)))
    assert "&lt;script&gt;alert(1)" in page and "<script>alert" not in page
    assert f'href="/api/jobs/{job.pk}/outputs/result.json" download' in page
    ann_web.post(web("job-delete", job.pk))
    assert not Job.objects.filter(pk=job.pk).exists()


def test_an_output_with_half_a_letter_is_shown(ann_web, succeeded):
    job = succeeded(
        rb'{"answer": "rain \ud83c"}', "result.json", "application/json"
    )  # cut by who wrote it, a model say
    assert "rain ?" in text(ann_web.get(web("job", job.pk)))


def test_the_ledger_shows_every_line_of_its_owner_alone(ann_web, bob_web, submit, ann):
    job = submit(price=7)
    lifecycle.cancel(job.pk, by="test")
    page = text(ann_web.get(web("tokens")))
    assert page.count("<tr>") == 4 and "-7" in page and "+7" in page and web("job", job.pk) in page
    assert text(bob_web.get(web("tokens"))).count("<tr>") == 2


@pytest.mark.django_db(transaction=True)
def test_an_account_form_sent_twice_at_once_is_saved(ann):
    gate = threading.Barrier(4)

    def save(_) -> int:
        browser = Client(raise_request_exception=False)
        browser.force_login(ann)
        gate.wait()
        try:
            return browser.post(web("account"), {"first_name": "A", "mail_after": 7, "low_balance": 10}).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        for _ in range(25):  # who comes second before the first has written is chance
            Preference.objects.all().delete()
            assert [*threads.map(save, range(4))] == [302] * 4
    ann.refresh_from_db()
    assert (ann.first_name, Preference.objects.get().mail_after, Preference.objects.get().mail_failed) == (
        "A",
        7,
        False,
    )


def test_a_key_is_shown_once_and_works_until_revoked(ann_web, ann):
    answer = ann_web.post(web("keys"), {"name": "laptop", "scope": "user", "days": "30"})
    secret = text(answer).partition('id="issued-key">')[2].partition("<")[0]
    key = ApiKey.objects.get()
    assert keys.find(secret) == key and key.owner == ann and key.expires_at and "no-store" in answer["Cache-Control"]
    assert secret not in text(ann_web.get(web("keys")))
    ann_web.post(web("key-revoke", key.pk))
    assert keys.find(secret) is None


def test_keys_of_others_are_not_there_and_a_key_is_never_more_than_its_maker(bob_web, ann_web, ann):
    key, secret = keys.issue(ann, "laptop")
    assert bob_web.post(web("key-revoke", key.pk)).status_code == 404 and keys.find(secret) == key
    assert key.prefix not in text(bob_web.get(web("keys")))
    ann_web.post(web("keys"), {"name": "more", "scope": "admin", "days": ""})
    ann_web.post(web("keys"), {"name": "", "scope": "user", "days": ""})
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize("name", ["job-cancel", "job-retry", "job-delete", "key-revoke", "sign-out", "keys"])
def test_a_post_without_its_token_does_nothing(ann, submit, name):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(ann)
    job, (key, _) = submit(), keys.issue(ann, "laptop")
    args = [job.pk] if name.startswith("job-") else [key.pk] if name == "key-revoke" else []
    answer = strict.post(web(name, *args), {"name": "x", "scope": "user"})
    assert answer.status_code == 403 and "too old" in text(answer)
    assert Job.objects.get().status == Status.QUEUED and ApiKey.objects.get().revoked_at is None
    assert strict.get(web("jobs")).status_code == 200


def away(execute, sql, params, many, context):
    raise OperationalError("server closed the connection unexpectedly")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["jobs", "tokens", "new"])
def test_a_database_that_is_away_is_told_and_not_shown_as_a_fault_of_ours(ann_web, name):
    with connection.execute_wrapper(away):
        answer = ann_web.get(web(name))
        assert ann_web.get("/api/jobs/").status_code == 503
    assert answer.status_code == 503 and answer["Retry-After"]
    assert ErrorCode.database_unavailable.row.sentence in text(answer)
    assert ann_web.get(web(name)).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_sign_in_says_so_too(client):
    with connection.execute_wrapper(away):
        answer = client.post(web("sign-in"), {"username": "ann", "password": "x"})
    assert answer.status_code == 503 and ErrorCode.database_unavailable.row.sentence in text(answer)


def test_pages_ask_as_many_questions_for_many_jobs_as_for_few(ann_web, submit, running, succeeded):
    def asked(address: str) -> int:
        with CaptureQueriesContext(connection) as questions:
            assert ann_web.get(address).status_code == 200
        return len(questions)

    waiting = submit()
    running_job, done = running().job_id, succeeded().pk
    pages = [
        web("jobs"),
        web("tokens"),
        *(web("job", pk) for pk in (waiting.pk, running_job, done)),
        web("new-kind", "STITCH"),
    ]
    few = {page: asked(page) for page in pages}
    for _ in range(20):
        submit()
    assert {page: asked(page) for page in pages} == few and max(few.values()) <= 16
