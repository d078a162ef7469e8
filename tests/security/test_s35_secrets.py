"""S35: whatever a job fails with, no secret setting is read afterwards: not in the log, a row, an answer or a page."""

import io
import logging

import pytest
from django.conf import settings
from django.core.management import call_command

from jobs import kinds, lifecycle, runner
from jobs.errors import ErrorCode, JobError
from jobs.heartbeat import heart
from jobs.models import Job
from jobsite import logs

pytestmark = pytest.mark.django_db(transaction=True)
OWN = ("RUNPOD_API_KEY", "LLM_KEY", "ALERT_WEBHOOK_URL", "METRICS_TOKEN", "PING_URL", "SENTRY_DSN")
PLAIN = ("CRON_SECRET", "ADMIN_API_KEY", "EMAIL_HOST_PASSWORD", "AWS_SECRET", "AWS_TOKEN")
CANARY = "canary-7d1e"


@pytest.fixture
def told(monkeypatch):
    """Every secret setting holds a canary. Returns all of them in one sentence, as a service might echo them."""
    monkeypatch.setattr(heart, "_end_if_deaf", lambda idle_since: None)
    monkeypatch.setattr(settings, "JOBSITE", settings.JOBSITE | {name: f"{CANARY}-{name}" for name in OWN})
    for name in PLAIN:
        monkeypatch.setattr(settings, name, f"{CANARY}-{name}")
    logs._known_secrets.cache_clear()  # a process learns its settings once
    yield "refused: " + ", ".join(f"{CANARY}-{name}" for name in (*OWN, *PLAIN))
    heart.stop()
    logs._known_secrets.cache_clear()


@pytest.fixture
def log():
    """What is logged meanwhile, as the log files have it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.LineFormatter())
    logging.getLogger().addHandler(handler)
    yield written
    logging.getLogger().removeHandler(handler)


def everything(capsys, clients, job) -> str:
    """All rows of the database, and all that is shown of the job."""
    capsys.readouterr()
    call_command("dumpdata", "jobs", "tokens", "admin")
    parts = [capsys.readouterr().out]
    for path in ("", "explain/", "logs/"):
        parts += [client.get(f"/api/jobs/{job.pk}/{path}").content.decode() for client in clients]
    return "".join(parts)


def test_each_code_and_a_bug(submit, told, log, monkeypatch, capsys, as_ann, as_op, client, op):
    codes = [*ErrorCode, None]
    for code in codes:

        def run(self, run, code=code):
            raise JobError(code, told, retryable=False) if code else RuntimeError(told)

        monkeypatch.setattr(type(kinds.get("KITCHEN")), "run", run)
        submit(max_attempts=1)
        runner.run(lifecycle.claim("cpu"))
    jobs = list(Job.objects.order_by("pk"))
    assert [job.error_code for job in jobs] == [*(code.name for code in ErrorCode), "internal_error"]
    client.force_login(op)
    shown = "".join(everything(capsys, (as_ann, as_op), job) for job in jobs[-2:])
    shown += client.get(f"/admin/jobs/job/{jobs[0].pk}/change/").content.decode()
    assert "refused: ***" in shown and "refused: ***" in log.getvalue()  # the probe: it was there to be read
    assert CANARY not in shown + log.getvalue()
