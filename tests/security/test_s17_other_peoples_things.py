"""S17: whatever of Ann's Bob names, it is not there: here in lists and bodies; every address is in test_every_route."""

import pytest

from jobs import lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.models import Job
from tokens.models import Transaction

pytestmark = pytest.mark.django_db


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
    return [{"job_id": str(job), "upload_id": str(upload().pk)} for job in jobs]


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
