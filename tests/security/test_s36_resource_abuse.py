"""S36: one user takes what there is: thousands of jobs, huge and deep bodies, huge lists, searches without end. Each is
refused with a word for it, and costs the others nothing."""

import copy
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from jobs import search
from jobs.api.gate import FORM_BYTES
from jobs.api.parsers import DEEPEST, MOST_BYTES
from jobs.errors import ErrorCode, Refused
from jobs.models import ApiKey, Endpoint, Job
from jobs.web import keys as web_keys
from tests.jobs.conftest import PARAMS

pytestmark = pytest.mark.django_db
KITCHEN = {"kind": "KITCHEN", "params": PARAMS}


def crowd(job: Job, count: int) -> None:
    """So many more of a live job, as if submitted a day ago; what they would cost is not the question."""
    job = Job.objects.get(pk=job.pk)  # with no field left out
    day_ago, jobs = (int(time.time()) - 86_400) * 1000, []
    for n in range(count):
        jobs.append(copy.copy(job))
        jobs[-1].pk, jobs[-1].price = UUID(int=((day_ago + n) << 80) | 7 << 76 | 2 << 62 | n), 0
    Job.objects.bulk_create(jobs, batch_size=500)


def fastest(ask, times: int = 10) -> float:
    """CPU seconds of the quickest of some requests: a busy machine slows the others, and stretches the wall's."""
    took = []
    for _ in range(times):
        began = time.thread_time()
        assert ask().status_code == 200
        took.append(time.thread_time() - began)
    return min(took)


def test_ten_thousand_jobs_are_refused_long_before_and_others_go_on(ann, as_ann, as_bob, submit, settings):
    assert settings.JOBSITE["JOBS_PER_USER"] == 1000
    bobs = as_bob.send("/api/jobs/", KITCHEN).json()["id"]
    asked = [lambda: as_bob.get("/api/jobs/"), lambda: as_bob.get(f"/api/jobs/{bobs}/")]
    before = [fastest(ask) for ask in asked]
    crowd(submit(price=0), 998)
    assert as_ann.send("/api/jobs/", KITCHEN).status_code == 202
    for _ in range(10):
        refused = as_ann.send("/api/jobs/", KITCHEN)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_jobs")
    assert Job.objects.filter(owner=ann).count() == 1000
    crowd_of_old = [fastest(ask) for ask in asked]
    assert as_bob.send("/api/jobs/", KITCHEN).status_code == 202
    for was, now in zip(before, crowd_of_old, strict=True):
        assert now < 2 * was + 0.005


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ["webhooks", "keys"])
def test_caps_hold_for_who_asks_many_times_at_once(ann, settings, monkeypatch, what):
    settings.JOBSITE = {**settings.JOBSITE, "WEBHOOKS_PER_USER": 2}
    monkeypatch.setattr(web_keys, "KEYS_MOST", 2)
    there = Endpoint.objects if what == "webhooks" else ApiKey.objects
    gate = threading.Barrier(8)

    def ask(_) -> int:
        browser = Client(raise_request_exception=False)
        browser.force_login(ann)
        gate.wait()
        try:
            form = {"url": "https://example.org/x", "name": "x", "scope": "user"}
            return browser.post(reverse(f"web:{what}"), form).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        answers = [*threads.map(ask, range(8))]
    assert (there.count(), answers.count(200)) == (2, 2) and set(answers) <= {200, 409, 429}


def test_a_burst_is_refused_and_others_go_on(as_ann, as_bob, settings, long_seconds):
    settings.JOBSITE = {**settings.JOBSITE, "SUBMITS_PER_SECOND": 3}
    answers = [as_ann.send("/api/jobs/", KITCHEN) for _ in range(10)]
    assert [answer.status_code for answer in answers] == [202] * 3 + [429] * 7
    assert {answer.json()["code"] for answer in answers if answer.status_code == 429} == {"rate_limited"}
    assert as_bob.send("/api/jobs/", KITCHEN).status_code == 202


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"kind": "KITCHEN", "params": {"' + b"x" * 900_000 + b'": 1}}', 400, "invalid_request"),
        (json.dumps(KITCHEN | {"params": PARAMS | {"code": "y" * 900_000}}).encode(), 400, "invalid_request"),
        (b'{"kind": "' + b"x" * MOST_BYTES + b'"}', 413, "too_large"),
        (b'{"params": ' + b"[" * DEEPEST + b"]" * DEEPEST + b"}", 400, "invalid_request"),
        (b'{"params": ' + b"[" * 400_000 + b"]" * 400_000 + b"}", 400, "invalid_request"),
        (b'{"params": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", 400, "invalid_request"),
        (b'{"n": ' + b"9" * 900_000 + b"}", 400, "invalid_request"),
        (b"{" + b",".join(b'"%d": 1' % n for n in range(80_000)) + b"}", 400, "invalid_request"),
        (json.dumps(KITCHEN | {"metadata": {"x": "y" * 900_000}}).encode(), 400, "invalid_request"),
    ],
    ids=[
        "long name",
        "long choice",
        "long",
        "deep",
        "very deep lists",
        "very deep objects",
        "long number",
        "many names",
        "metadata",
    ],
)
def test_bodies_end_somewhere(as_ann, body, status, code):
    began = time.process_time()
    answer = as_ann.send("/api/jobs/", body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert len(answer.content) < 20_000, "the answer is not as large as the question"
    assert time.process_time() - began < 10
    assert FORM_BYTES <= 4 * MOST_BYTES  # larger ones are not even read: tests/jobs/api/test_gate.py


@pytest.mark.parametrize("path", ["/api/jobs/", "/api/uploads/", "/api/tokens/"])
@pytest.mark.parametrize("limit", ["101", "10000", "0", "-1", "1e9", "9" * 5000])
def test_pages_have_at_most_a_hundred(as_ann, path, limit):
    assert as_ann.get(path, {"limit": "100"}).status_code == 200
    answer = as_ann.get(path, {"limit": limit})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "line",
    [" ".join("abcdefghij" * 500), " ".join(["id:0198c2f1"] * 5000), "meta." + "a." * 20_000 + "a:1", "a." * 30_000],
    ids=["words", "ids", "path", "one word"],
)
def test_a_search_line_ends_somewhere(op, client, line):
    with pytest.raises(Refused) as refused:
        search.search(Job.objects.all(), line)
    assert refused.value.code is ErrorCode.invalid_request
    client.force_login(op)
    with CaptureQueriesContext(
        connection,
    ) as asked:
        assert client.get("/admin/jobs/job/", {"q": line}).status_code == 200
    assert len(asked) < 40


def test_the_admin_takes_no_lookups_of_ones_own(op, client):
    """A regular expression that never ends would hold the database."""
    client.force_login(op)
    for lookup in ("owner__password__regex", "error_message__iregex", "params__regex"):
        assert client.get("/admin/jobs/job/", {lookup: "(a+)+$"}).status_code in (302, 400)
    many = client.get("/admin/jobs/job/", {"all": "", "p": "99999999"})
    assert many.status_code in (200, 302)
