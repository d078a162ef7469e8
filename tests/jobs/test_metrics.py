"""/metrics says what the database knows, whoever did the work; dashboard, alert rules and document name only what it
serves."""

import json
import re
import threading
from pathlib import Path

import pytest
from django.conf import settings as configured
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from jobs import health, lifecycle, metrics, slots, tally, webhooks
from jobs.errors import ErrorCode, JobError
from jobs.models import Breaker, Delivery, Job, JobEvent, Muted, Tally
from tokens import ledger

pytestmark = pytest.mark.django_db
ROOT = Path(configured.BASE_DIR)
CPU = {"kind": "KITCHEN", "queue": "cpu"}


@pytest.fixture(autouse=True)
def _no_margin(monkeypatch):
    """Events count at once; the margin has a test of its own."""
    monkeypatch.setattr(tally, "MARGIN", tally.timedelta(0))


def scrape(**headers: str) -> dict[str, list]:
    """Sample name → its samples."""
    response = Client(headers={"host": "localhost", **headers}).get("/metrics")
    assert response.status_code == 200
    found: dict[str, list] = {}
    for family in text_string_to_metric_families(response.content.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def value(name: str, **labels: str) -> float:
    """The one sample of `name` with these labels; 0.0 if there is none."""
    samples = [sample.value for sample in scrape().get(name, []) if labels.items() <= sample.labels.items()]
    assert len(samples) <= 1, samples
    return samples[0] if samples else 0.0


def test_what_became_of_jobs_is_counted(running, submit):
    lifecycle.succeed(running(), [])
    lifecycle.fail(running(), JobError(ErrorCode.worker_timeout))  # tried again
    lifecycle.cancel(submit().pk, by="ann")
    assert value("jobsite_job_transitions_total", **CPU, status="SUCCEEDED", code="") == 0.0
    assert tally.fold() == 8
    assert tally.fold() == 0
    assert value("jobsite_job_transitions_total", **CPU, status="SUCCEEDED", code="") == 1
    assert value("jobsite_job_transitions_total", **CPU, status="RETRY", code="worker_timeout") == 1
    assert value("jobsite_job_transitions_total", **CPU, status="QUEUED", code="") == 3
    assert value("jobsite_tokens_charged_total", **CPU) == 30
    assert value("jobsite_tokens_refunded_total", **CPU) == 10
    assert value("jobsite_refunds_total", **CPU) == 1
    assert value("jobsite_heartbeats_missed_total", **CPU) == 1
    assert value("jobsite_jobs", **CPU, status="RETRY") == 1
    assert value("jobsite_jobs", **CPU, status="QUEUED") == 0


def test_times_are_histograms(running):
    lease = running()
    now = timezone.now()
    JobEvent.objects.filter(status="QUEUED").update(at=now - tally.timedelta(seconds=7))
    JobEvent.objects.filter(status="RUNNING").update(at=now - tally.timedelta(seconds=4))
    lifecycle.succeed(lease, [])
    tally.fold()
    found = scrape()
    waits = {sample.labels["le"]: sample.value for sample in found["jobsite_claim_latency_seconds_bucket"]}
    assert (waits["2.5"], waits["5.0"], waits["+Inf"]) == (0, 1, 1)
    assert found["jobsite_claim_latency_seconds_sum"][0].value == pytest.approx(3, abs=0.01)
    (runs,) = found["jobsite_run_seconds_count"]
    assert (runs.labels["status"], runs.value) == ("SUCCEEDED", 1)
    assert 3.9 < found["jobsite_run_seconds_sum"][0].value < 30
    assert list(waits.values()) == sorted(waits.values())


def test_the_wait_before_a_retry_is_no_latency(running):
    lease = running()
    lifecycle.fail(lease, JobError(ErrorCode.internal_error))
    Job.objects.update(run_after=timezone.now() - tally.timedelta(seconds=1))
    assert lifecycle.claim("cpu")
    tally.fold()
    assert value("jobsite_claim_latency_seconds_count", **CPU) == 1
    assert value("jobsite_run_seconds_count", **CPU, status="RETRY") == 1


def test_a_deleted_job_stays_counted(submit):
    """Seen without `tally.keep` in lifecycle._delete: the totals stay 0, and one that was served would go down."""
    for _ in range(2):
        lifecycle.delete(submit().pk, by="ann")
        tally.fold()
        assert not JobEvent.objects.exists()
    assert value("jobsite_job_transitions_total", **CPU, status="CANCELED", code="user_canceled") == 2
    tally.fold()
    lifecycle.delete(Job.objects.get(pk=submit().pk).pk, by="ann")
    assert value("jobsite_tokens_charged_total", **CPU) == 30


def test_a_long_backlog_is_counted_in_batches(submit, monkeypatch):
    monkeypatch.setattr(tally, "BATCH", 2)
    for _ in range(5):
        submit()
    assert tally.fold() == 5
    assert value("jobsite_job_transitions_total", **CPU, status="QUEUED") == 5


if connection.vendor == "postgresql":  # SQLite has one writer

    def test_an_event_that_commits_late_is_not_passed_by(submit, monkeypatch):
        """An open transaction may hold a lower id than events that are seen: none younger than the margin is counted,
        nor any behind such a one. Seen without `_settled`: the late event is never counted."""
        monkeypatch.setattr(tally, "MARGIN", tally.timedelta(seconds=15))
        first, second = submit(), submit()
        JobEvent.objects.filter(job=second).update(at=timezone.now() - tally.timedelta(seconds=60))
        assert tally.fold() == 0
        JobEvent.objects.filter(job=first).update(at=timezone.now() - tally.timedelta(seconds=60))
        assert tally.fold() == 2


@pytest.mark.django_db(transaction=True)
def test_two_at_once_count_once(submit):
    for _ in range(20):
        submit()
    counted = []

    def fold():
        try:
            counted.append(tally.fold())
        finally:
            connection.close()

    threads = [threading.Thread(target=fold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(counted) == 20
    assert value("jobsite_tokens_charged_total", **CPU) == 200


def test_queues_slots_and_the_rest_as_they_are(submit, ann):
    slot = slots.register(["cpu", "gpu"])
    late = submit()
    Job.objects.filter(pk=late.pk).update(run_after=timezone.now() - tally.timedelta(seconds=90))
    assert value("jobsite_queue_age_seconds", queue="cpu") == pytest.approx(90, abs=20)
    assert value("jobsite_queue_due", queue="cpu") == 1
    assert value("jobsite_slots", queue="cpu", status="free") == 1
    assert lifecycle.claim("cpu", slot.pk)
    assert value("jobsite_slots", queue="gpu", status="busy") == 1
    assert value("jobsite_slots", queue="gpu", status="free") == 0
    assert value("jobsite_queue_age_seconds", queue="cpu") == 0
    Breaker.objects.create(target="runpod", opened_at=timezone.now())
    assert value("jobsite_breaker_state", code="runpod", status="open") == 1
    assert value("jobsite_breaker_state", code="runpod", status="closed") == 0
    endpoint, _ = webhooks.create(ann.pk, url="https://hooks.example.com/")
    webhooks.send_test(endpoint)
    Delivery.objects.update(next_at=timezone.now() - tally.timedelta(seconds=50))
    assert value("jobsite_webhook_lag_seconds") == pytest.approx(50, abs=20)
    assert value("jobsite_webhooks_due") == 1
    webhooks.mute(endpoint.pk, Muted.FAILING)
    assert value("jobsite_webhooks_muted", status="failing") == 1
    assert value("jobsite_ledger_drifted_accounts") == 0
    ledger.Account.objects.filter(pk=ann.pk).update(balance=7)
    health._ledger.forget()
    assert value("jobsite_ledger_drifted_accounts") == 1
    assert value("jobsite_disk_free_bytes") > 0


def test_without_a_database_it_still_answers():
    def refuse(*_):
        raise OperationalError("gone")

    with connection.execute_wrapper(refuse):
        found = scrape()
    assert found["jobsite_database_up"][0].value == 0
    assert "jobsite_jobs" not in found
    assert found["jobsite_disk_free_bytes"][0].value > 0


def test_a_scrape_costs_as_much_for_many_jobs_as_for_few(submit, django_assert_max_num_queries):
    for _ in range(12):
        submit()
    scrape()
    with django_assert_max_num_queries(32):
        scrape()
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
        explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
        cursor.execute(f"{explain} {metrics.LIVE % metrics.MOST}")
        plan = " ".join(str(row) for row in cursor.fetchall())
    assert "job_active_of_owner" in plan, plan


# --- who may read it ------------------------------------------------------------------------------------------------


def answered(client: Client | None = None, **headers: str) -> int:
    return (client or Client()).get("/metrics", headers={"host": "localhost", **headers}).status_code


@pytest.fixture
def token(settings):
    settings.JOBSITE = {**settings.JOBSITE, "METRICS_TOKEN": "a-token-of-24-characters"}
    return settings.JOBSITE["METRICS_TOKEN"]


def test_programs_of_this_host_need_no_token(token):
    assert answered() == 200
    assert answered(Client(REMOTE_ADDR="::1")) == 200
    assert answered(Client(REMOTE_ADDR="10.0.0.9")) == 401
    assert answered(Client(REMOTE_ADDR="")) == 401  # a unix socket: a proxy's, most likely


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "Via", "X-Forwarded-Proto"])
def test_nobody_becomes_this_host_through_a_proxy(header):
    assert answered(**{header: "127.0.0.1"}) == 401
    assert answered(Client(REMOTE_ADDR="10.0.0.9"), **{header: "127.0.0.1"}) == 401


def test_in_production_only_the_token_opens(settings, token):
    """A proxy of the same host that sends no header of its own would make everybody this host."""
    settings.PRODUCTION = True
    assert answered() == 401
    assert answered(Authorization="Bearer wrong") == 401
    assert answered(Authorization=f"Basic {token}") == 401
    assert answered(Client(REMOTE_ADDR="10.0.0.9"), Authorization=f"Bearer {token}") == 200


def test_an_empty_token_opens_nothing():
    for given in ("Bearer ", "Bearer", ""):
        assert answered(Client(REMOTE_ADDR="10.0.0.9"), Authorization=given) == 401


def test_it_speaks_openmetrics_too():
    response = Client().get("/metrics", headers={"host": "localhost", "accept": "application/openmetrics-text"})
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert response.content.endswith(b"# EOF\n")


# --- what names them --------------------------------------------------------------------------------------------------


def served() -> set[str]:
    """Every name that a query may use; a histogram's and a counter's by their suffixes."""
    families = text_string_to_metric_families(Client().get("/metrics", headers={"host": "localhost"}).content.decode())
    names = set()
    for family in families:
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    return names


@pytest.mark.parametrize("file", ["deploy/grafana/jobsite.json", "deploy/prometheus/rules.yml"])
def test_dashboard_and_rules_name_only_what_is_served(file):
    text = (ROOT / file).read_text()
    named = set(re.findall(r"jobsite_[a-z_]+", text))
    assert len(named) > 8
    assert named - served() == set()


def test_the_dashboard_is_whole():
    board = json.loads((ROOT / "deploy/grafana/jobsite.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 12
    assert all(query.count("(") == query.count(")") for query in queries)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_the_document_lists_every_metric_and_no_other():
    listed = set(re.findall(r"^\| `(jobsite_[a-z_]+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    assert listed == {re.sub("_(bucket|sum|count)$", "", name) for name in served()}


def test_no_label_names_a_user_or_a_job(submit, ann):
    job = submit()
    Breaker.objects.create(target="storage")
    tally.fold()
    allowed = {"kind", "queue", "status", "code", "le"}
    for name, samples in scrape().items():
        if name != "jobsite_build_info":
            assert {label for sample in samples for label in sample.labels} <= allowed, name
        assert not any(str(job.pk) in sample.labels.values() for sample in samples)
    assert Tally.objects.exclude(series=tally.MARK).exists()
