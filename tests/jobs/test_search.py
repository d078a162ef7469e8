"""Searching jobs in one line: what each qualifier finds, and what is said of those that cannot be understood."""

import pytest

from jobs import lifecycle
from jobs.errors import ErrorCode, JobError, Refused
from jobs.models import Job
from jobs.search import needs_bound, newest, search
from tests.clients import ApiClient


@pytest.fixture
def three(ann, bob, submit, running):
    """Ann's waiting, Ann's failed, Bob's waiting, by name."""
    lease = running()
    lifecycle.fail(lease, JobError(ErrorCode.bad_input))
    jobs = {"failed": Job.objects.get(pk=lease.job_id), "waiting": submit(), "bobs": submit(owner=bob)}
    Job.objects.filter(pk=jobs["waiting"].pk).update(metadata={"order": "A 17", "shop": {"number": 5}, "ok": True})
    bobs = {"order": "A 18", "shop.number": 6, "contains": "x", "2026": {"-1": "y"}, "a": [0, {"b": "z"}]}
    Job.objects.filter(pk=jobs["bobs"].pk).update(metadata=bobs)
    return jobs


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {"failed", "waiting", "bobs"}),
        ("status:FAILED", {"failed"}),
        ("status:failed kind:kitchen", {"failed"}),
        ("status:FAILED status:QUEUED", {"failed", "waiting", "bobs"}),
        ("code:bad_input", {"failed"}),
        ("code:ffmpeg_error", set()),
        ("user:bob", {"bobs"}),
        ("user:bob status:FAILED", set()),
        ("user:bo", set()),
        ("user:99999999999999999999", set()),
        ("bo", {"bobs"}),
        ("an status:QUEUED", {"waiting"}),
        ("queue:cpu user:ann", {"failed", "waiting"}),
        ('meta.order:"A 17"', {"waiting"}),
        ("meta.shop.number:5", {"waiting"}),
        ("meta.ok:true", {"waiting"}),
        ("meta.contains:x", {"bobs"}),
        ("meta.order:17", set()),
        ("meta.2026.-1:y", {"bobs"}),
        ("meta.a.1.b:z", {"bobs"}),
        ("meta.-1:y", set()),
        ("meta.99999999999:y meta.a.99999999999:y", set()),
        ("nobody", set()),
        ("%", set()),
        ("' OR 1=1 --", set()),
        ("\0ann\0 status:FAILED", {"failed"}),
    ],
)
def test_what_a_line_finds(three, text, found):
    jobs = {job.pk: name for name, job in three.items()}
    assert {jobs[job.pk] for job in search(Job.objects.all(), text)} == found


def test_ids_whole_and_by_their_beginning(three):
    job = three["failed"]
    for text in (str(job.pk), f"id:{job.pk}", job.pk.hex.upper(), f"id:{job.pk} status:FAILED"):
        assert list(search(Job.objects.all(), text)) == [job]
    beginning = str(job.pk)[:8]  # of one minute's jobs: mostly of all three
    alike = {other for other in three.values() if str(other.pk).startswith(beginning)}
    assert set(search(Job.objects.all(), beginning)) == alike
    two = f"id:{job.pk} id:{three['bobs'].pk}"
    assert search(Job.objects.all(), two).count() == 2


@pytest.mark.parametrize(
    "text", ["colour:red", "status:DONE", "kind:NONE", "code:nope", "id:zz", "meta:x", "kind.x:RENDER", "http://x"]
)
def test_what_cannot_be_understood_is_said(three, text):
    with pytest.raises(Refused) as refused:
        search(Job.objects.all(), text)
    assert refused.value.code is ErrorCode.invalid_request and refused.value.detail


def test_metadata_is_looked_for_among_the_newest_only(three):
    assert newest(Job.objects.all(), 2).count() == 2
    assert three["failed"] not in newest(Job.objects.all(), 2)


@pytest.mark.parametrize(
    ("chosen", "bound"),
    [
        ({}, False),
        ({"kind": "RENDER"}, True),
        ({"error_code": "bad_input"}, True),
        ({"error_code": "bad_input", "status": "FAILED"}, False),
        ({"queue": "gpu", "status": "FAILED"}, True),
        ({"queue": "gpu", "status": "QUEUED"}, False),
        ({"q": "kind:RENDER"}, True),
        ({"q": "kind:RENDER status:failed"}, False),
        ({"q": "kind:RENDER user:ann"}, False),
        ({"q": "ann", "kind": "RENDER"}, False),
    ],
)
def test_what_no_index_holds_is_looked_for_among_the_newest(chosen, bound):
    assert needs_bound(chosen) is bound


@pytest.mark.once  # the plan in words is SQLite's
@pytest.mark.parametrize("text", ["user:ann", "bo", "id:0198c2f1", "status:FAILED"])
def test_what_is_searched_often_is_found_by_an_index(three, text):
    plan = search(Job.objects.order_by("-id"), text).explain()
    assert "USING INDEX" in plan or "USING COVERING INDEX" in plan, plan


# --- in the API: one's own jobs -------------------------------------------------------------------------------------


def listed(client, line: str, **more: str) -> list[str]:
    answer = client.get("/api/jobs/", {"search": line, **more})
    assert answer.status_code == 200, answer.content
    return [job["id"] for job in answer.json()["results"]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("status:FAILED code:bad_input", {"failed"}),
        ('kind:KITCHEN meta.order:"A 17"', {"waiting"}),
        ("an", {"failed", "waiting"}),
        ("user:bob", set()),
        ("bob", set()),
        ('meta.order:"A 18"', set()),
    ],
)
def test_the_list_of_the_api_takes_the_same_words_and_shows_ones_own(three, as_ann, text, found):
    assert {str(three[name].pk) for name in found} == set(listed(as_ann, text))
    assert listed(as_ann, f"id:{three['bobs'].pk}") == []
    assert listed(as_ann, text, status="CANCELED") == []


def test_an_operator_searches_everybodys(three, op):
    assert listed(ApiClient(op, scope="viewer"), "user:bob") == [str(three["bobs"].pk)]


def test_pages_of_a_search_go_on_with_it(three, as_ann):
    answer = as_ann.get("/api/jobs/", {"search": "kind:KITCHEN", "limit": 1}).json()
    rest = as_ann.get(answer["next"]).json()
    assert [job["id"] for job in answer["results"] + rest["results"]] == [
        str(three[name].pk) for name in ("waiting", "failed")
    ]
    assert rest["next"] is None


@pytest.mark.parametrize("line", ["kind:KITCHEN", "meta.order:17"])
def test_who_has_few_jobs_on_a_busy_platform_has_all_of_them_looked_through(
    three, submit, as_ann, bob, line, monkeypatch
):
    """The bound of what no index holds counts the caller's jobs, not the platform's."""
    Job.objects.filter(pk=three["failed"].pk).update(metadata={"order": 17})
    monkeypatch.setattr("jobs.search.LOOKED_AT", 2)
    monkeypatch.setattr("jobs.search.META_LOOKED_AT", 2)
    for _ in range(3):
        submit(owner=bob)
    assert str(three["failed"].pk) in listed(as_ann, line)
    submit()
    assert str(three["failed"].pk) not in listed(as_ann, line)
