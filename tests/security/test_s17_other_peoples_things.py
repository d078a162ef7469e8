"""S17: whatever id of Ann's Bob names, in whatever address and method, it is not there.

The walker reads the addresses from the URL configuration, so a route that is added is walked too.
"""

import re

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from jobs import lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.models import Job, JobEvent, Upload
from tests.clients import content
from tokens.models import Transaction

pytestmark = pytest.mark.django_db
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
FOR_ADMINS = "api/ingest"  # refused for want of scope before any id is looked at


def routes(patterns, prefix: str = ""):
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern) and "<" in route and not route.startswith(("admin/", "static/")):
            yield route


def fill(route: str, ids: dict[str, str]) -> str:
    return "/" + re.sub(r"<(?:\w+:)?(\w+)>", lambda match: ids[match[1]], route)


@pytest.fixture
def anns(succeeded, running, submit, upload):
    """Path arguments by name: an id of Ann's for each, in several states of a job."""
    lease = running(max_attempts=1)
    lifecycle.fail(lease, JobError(ErrorCode.ffmpeg_error))
    jobs = [submit().pk, running().job_id, lease.job_id, succeeded().pk]
    for kind in ("ANALYZE", "INGEST"):
        other = running(max_attempts=1)
        lifecycle.fail(other, JobError(ErrorCode.bad_input))
        Job.objects.filter(pk=other.job_id).update(kind=kind)
        jobs.append(other.job_id)
    return [{"job_id": str(job), "name": "dish.txt", "upload_id": str(upload().pk)} for job in jobs]


def test_bob_finds_nothing_of_anns(as_bob, as_ann, anns):
    before = list(Job.objects.order_by("pk").values()), JobEvent.objects.count(), Upload.objects.count()
    walked = sorted(set(routes(get_resolver().url_patterns)))
    assert len(walked) >= 10
    for route in walked:
        for ids in anns:
            for method in METHODS:
                answer = as_bob.send(fill(route, ids), {}, method=method)
                no = (403,) if route.startswith(FOR_ADMINS) else (404, 405)
                assert answer.status_code in no, (method, route, answer.status_code)
                assert b"ann" not in content(answer).lower()
    assert before == (list(Job.objects.order_by("pk").values()), JobEvent.objects.count(), Upload.objects.count())


def test_the_walk_would_find_them(as_ann, as_op, anns):
    """The same addresses answer Ann, or an admin: the 404s above are about whose they are."""
    walked, found = set(routes(get_resolver().url_patterns)), set()
    for method in [method for method in METHODS if method != "DELETE"]:  # reads first: the others change what is read
        for route in walked:
            client = as_op if route.startswith(FOR_ADMINS) else as_ann
            answers = [client.send(fill(route, ids), {}, method=method) for ids in anns]
            if any(content(answer) for answer in answers if answer.status_code not in (404, 405)):
                found.add(route)
    assert found == walked


def test_lists_hold_ones_own_alone(as_bob, anns):
    for path in ("/api/jobs/", "/api/uploads/"):
        assert as_bob.get(path).json()["results"] == []
    assert {line["kind"] for line in as_bob.get("/api/tokens/").json()["results"]} == {"GRANT"}


def test_a_cursor_of_anns_leads_nowhere(as_bob, anns):
    for ids in anns:
        assert as_bob.get(f"/api/jobs/?cursor={ids['job_id']}").json()["results"] == []
    latest = Transaction.objects.latest("id").pk + 1
    lines = as_bob.get(f"/api/tokens/?cursor={latest}").json()["results"]
    assert [line["kind"] for line in lines] == ["GRANT"]


def test_anns_files_are_no_inputs_of_bobs(as_bob, anns):
    for ids in anns:
        for clip in (f"upload:{ids['upload_id']}", f"job:{ids['job_id']}", f"job:{ids['job_id']}/dish.txt"):
            answer = as_bob.send("/api/jobs/", {"kind": "STITCH", "params": {"clips": [clip, clip]}})
            assert (answer.status_code, answer.json()["code"]) == (400, "input_not_found")
