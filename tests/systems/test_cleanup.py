"""The cleanup's document (seed 002): stuck jobs end FAILED and refunded, by admin, by cron, and in the log."""

import io

from django.core.management import call_command

from jobs.models import Job
from tests.faults.rig import balance, cook

RESULT = {"totalFound", "cleanedUp", "failed", "tokensRefunded", "jobs", "errors"}
ITEM = {"jobId", "userId", "kind", "tokensRefunded", "processingDuration"}


def test_the_documented_calls_and_answers(platform, op_calls, ann_calls, ann):
    jobs = [cook(ann, price=9, max_attempts=1) for _ in range(3)]
    for job in jobs:
        call_command("rehearse", "stuck", str(job.pk), "--minutes", "10", stdout=io.StringIO())
    path = "/api/admin/jobs/cleanup"
    status, dry = op_calls("POST", path, '{"dryRun": true}')
    assert (status, dry["result"]["totalFound"], dry["result"]["cleanedUp"]) == (200, 3, 0)
    assert ann_calls("POST", path)[0] == 403
    status, wrong = op_calls("POST", path, '{"timeoutMs": "soon"}')
    assert (status, wrong["errors"][0]["field"]) == (400, "timeoutMs")
    assert op_calls("POST", path, '{"timeoutMs": 1200000}')[1]["result"]["totalFound"] == 0
    status, done = op_calls("POST", path)
    assert (status, done["success"]) == (200, True)
    assert done["message"] == "Successfully cleaned up 3 stuck jobs and refunded 27 tokens"
    assert set(done["result"]) == RESULT and all(set(item) == ITEM for item in done["result"]["jobs"])
    assert balance(ann) == 1000
    assert set(Job.objects.values_list("status", "error_code")) == {("FAILED", "worker_timeout")}
    log = platform.log("web")
    for line in (
        "Starting stuck jobs cleanup",
        "Found stuck jobs count=3",
        f"Cleaning up stuck job jobId={jobs[0].pk} tokensCost=9",
        "Job cleaned up successfully tokensRefunded=9 processingDuration=60",
        "Cleanup completed totalFound=3 cleanedUp=3 tokensRefunded=27",
    ):
        assert line in log, line


def test_cron_wants_its_secret(platform, op_calls):
    path = "/api/cron/cleanup-jobs"
    assert op_calls("GET", path)[0] == 401
    assert op_calls("GET", path, Authorization="Bearer wrong")[0] == 401
    status, done = op_calls("GET", path, Authorization="Bearer a-cron-secret")
    assert (status, done["result"]["totalFound"]) == (200, 0)
