"""What a look at one's jobs costs: SQL statements of a detail and of a list of 50, and requests a second by HTTP."""

import http.client
import time
from datetime import timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext

from bench import Options, Row, median, turns
from bench.stage import Stage, wait
from jobs import keys, lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.models import Artifact, Job

LISTED = 50
LIST = f"/api/jobs/?limit={LISTED}"


def measure(stage: Stage, options: Options) -> list[Row]:
    """The most statements over a job's states and a key's first and later use; requests one after the other."""
    _, secret = keys.issue(stage.owner, "bench")
    details = [f"/api/jobs/{job_id}/" for job_id in make_jobs(stage)]
    worst = max(statements(path, secret) for path in [*details, *details])
    rows = [
        Row("SQL statements, job detail", worst, None, "≤ 6"),
        Row(f"SQL statements, list of {LISTED}", statements(LIST, secret), None, "≤ 6"),
    ]
    stage.platform("web")
    wait(lambda: answers("/livez"), stage, "web")
    number = 20 if options.quick else 300
    speeds = turns(options.rounds, *(asked(path, secret, number) for path in ("/livez", details[0], LIST)))
    live, detail, listed = map(median, speeds)
    rows.append(Row("job details a second (against /livez)", detail, live, "", "/s"))
    rows.append(Row(f"lists of {LISTED} a second (against /livez)", listed, live, "", "/s"))
    for job in Job.objects.filter(owner=stage.owner, finished_at=None):
        lifecycle.cancel(job.pk, by="bench")  # nothing for the cleanup to find
    return rows


def make_jobs(stage: Stage) -> list:
    """Ids of a succeeded, a failed, a running and a queued job, beside enough others to fill the list."""

    @transaction.atomic  # no worker sees it before it has ended
    def finished(error: JobError | None = None):
        job, _ = lifecycle.submit(stage.owner.pk, "NOOP", {}, max_attempts=1)
        lease = lifecycle.claim("cpu")
        if error:
            lifecycle.fail(lease, error)
        else:
            output = Artifact(job_id=job.pk, attempt=1, name="a.txt", key=f"jobs/{job.pk}/1/a.txt", bytes=1)
            lifecycle.succeed(lease, [output])
        return job.pk

    for _ in range(LISTED):
        finished()
    with transaction.atomic():
        running, _ = lifecycle.submit(stage.owner.pk, "NOOP", {})
        lifecycle.claim("cpu")
    with transaction.atomic():
        queued, _ = lifecycle.submit(stage.owner.pk, "NOOP", {})
        Job.objects.filter(pk=queued.pk).update(run_after=Now() + timedelta(days=1))
    return [finished(), finished(JobError(ErrorCode.bad_input)), running.pk, queued.pk]


def statements(path: str, secret: str) -> int:
    """SQL statements of one GET."""
    with CaptureQueriesContext(connection) as queries:
        answer = Client(SERVER_NAME="localhost").get(path, headers={"Authorization": f"Bearer {secret}"})
    if answer.status_code != 200:
        raise RuntimeError(f"GET {path} answered {answer.status_code}")
    return len(queries)


def asked(path: str, secret: str, number: int):
    """Measures requests a second over one kept connection."""

    def rate() -> float:
        connection = http.client.HTTPConnection(settings.HOST, settings.PORT, timeout=30)
        began = time.perf_counter()
        for _ in range(number):
            connection.request("GET", path, headers={"Authorization": f"Bearer {secret}"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"GET {path} answered {answer.status}")
        took = time.perf_counter() - began
        connection.close()
        return number / took

    return rate


def answers(path: str) -> bool:
    """Whether the web process answers."""
    try:
        probe = http.client.HTTPConnection(settings.HOST, settings.PORT, timeout=5)
        probe.request("GET", path)
        return probe.getresponse().status == 200
    except OSError:
        return False
