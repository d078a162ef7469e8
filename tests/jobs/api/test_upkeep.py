"""The cleanup routes: the documented shapes, for admins and for an outside scheduler."""

from datetime import timedelta

import pytest
from django.utils import timezone

from jobs.models import CleanupRun, Job, Status
from tests.clients import ApiClient, codes
from tokens.models import Account

pytestmark = pytest.mark.django_db
ROUTE = "/api/admin/jobs/cleanup"


@pytest.fixture
def stuck(running):
    """stuck(3) → jobs of Ann's whose worker has not been heard of for ten minutes."""

    def make(number: int = 1, price: int = 9) -> list:
        jobs = [running(max_attempts=1, price=price).job_id for _ in range(number)]
        long_ago = timezone.now() - timedelta(minutes=10)
        Job.objects.filter(pk__in=jobs).update(heartbeat_at=long_ago, started_at=long_ago)
        return jobs

    return make


def test_the_documented_answer(ann, as_op, stuck):
    jobs = stuck(3)
    answer = as_op.send(ROUTE)  # no body, no Content-Type
    found = answer.json()
    assert answer.status_code == 200
    assert found["success"] is True
    assert found["message"] == "Successfully cleaned up 3 stuck jobs and refunded 27 tokens"
    result = found["result"]
    assert {**result, "jobs": []} == {
        "totalFound": 3,
        "cleanedUp": 3,
        "failed": 0,
        "tokensRefunded": 27,
        "jobs": [],
        "errors": [],
    }
    assert {job["jobId"] for job in result["jobs"]} == {str(job) for job in jobs}
    first = result["jobs"][0]
    assert list(first) == ["jobId", "userId", "kind", "tokensRefunded", "processingDuration"]
    assert (first["userId"], first["kind"], first["tokensRefunded"]) == (ann.pk, "KITCHEN", 9)
    assert first["processingDuration"] >= 600_000  # milliseconds
    assert Account.objects.get(pk=ann.pk).balance == 1000
    assert CleanupRun.objects.get().by.startswith("user:")


def test_a_dry_run_changes_nothing(ann, as_op, stuck):
    stuck(2)
    found = as_op.send(ROUTE + "/", {"dryRun": True, "timeoutMs": 60_000}).json()
    assert (found["result"]["totalFound"], found["result"]["cleanedUp"]) == (2, 0)
    assert found["message"] == "Dry run: found 2 stuck jobs, nothing was changed"
    assert Job.objects.filter(status=Status.RUNNING).count() == 2
    assert Account.objects.get(pk=ann.pk).balance == 982


def test_batch_size_is_how_many_at_most(as_op, stuck):
    stuck(3)
    assert as_op.send(ROUTE, {"batchSize": 2}).json()["result"]["cleanedUp"] == 2
    assert as_op.send(ROUTE, {"batchSize": 2}).json()["result"]["cleanedUp"] == 1


def test_a_healthy_job_is_not_touched(as_op, running):
    running()
    assert as_op.send(ROUTE, {"timeoutMs": 15_000}).json()["result"]["totalFound"] == 0


def test_json_is_read_whatever_curl_calls_it(as_op, stuck):
    stuck()
    for content_type in ("application/x-www-form-urlencoded", "", "text/plain"):
        answer = as_op.generic("POST", ROUTE, b'{"dryRun": true}', content_type=content_type)
        assert answer.json()["result"]["totalFound"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"timeoutMs": -1}, "timeoutMs"),
        ({"timeoutMs": 1}, "timeoutMs"),
        ({"timeoutMs": 14_999}, "timeoutMs"),
        ({"timeoutMs": 10**15}, "timeoutMs"),
        ({"timeoutMs": "60000"}, "timeoutMs"),
        ({"timeoutMs": 1.5}, "timeoutMs"),
        ({"timeoutMs": True}, "timeoutMs"),
        ({"dryRun": "yes"}, "dryRun"),
        ({"dryRun": 1}, "dryRun"),
        ({"batchSize": 0}, "batchSize"),
        ({"batchSize": 10_001}, "batchSize"),
        ({"batch_size": 5}, "batch_size"),
    ],
)
def test_a_bad_body_names_its_field(as_op, stuck, body, field):
    stuck()
    answer = as_op.send(ROUTE, body)
    assert (answer.status_code, list(codes(answer))) == (400, [field])
    assert not CleanupRun.objects.exists()


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"{", b'{"dryRun": NaN}'])
def test_what_is_no_object_is_refused(as_op, body):
    assert as_op.send(ROUTE, body).status_code == 400


@pytest.mark.parametrize(
    ("scope", "status"), [("user", 403), ("viewer", 403), ("finance", 403), ("operator", 403), ("admin", 200)]
)
def test_only_admins(bob, scope, status):
    assert ApiClient(bob, scope).send(ROUTE).status_code == status


def test_an_admins_session_needs_its_token(op, stuck):
    browser = ApiClient(enforce_csrf_checks=True)
    browser.force_login(op)
    assert browser.send(ROUTE).status_code == 403
    token = "x" * 32
    browser.cookies["csrftoken"] = token
    form = browser.generic("POST", ROUTE, b"[]", content_type="application/x-www-form-urlencoded")
    assert form.status_code == 400  # the check reads the body as a form; no form is no crash
    assert browser.send(ROUTE, {}, X_CSRFToken=token).status_code == 200


# --- the outside scheduler -----------------------------------------------------------------------------------------


def test_cron_cleans_up(client, settings, stuck):
    settings.CRON_SECRET = "s3cret"
    stuck()
    answer = client.get("/api/cron/cleanup-jobs", headers={"Authorization": "Bearer s3cret"})
    assert (answer.status_code, answer.json()["result"]["cleanedUp"]) == (200, 1)
    assert CleanupRun.objects.get().by == "cron"


@pytest.mark.parametrize(
    ("secret", "header"),
    [
        ("", None),
        ("", "Bearer "),
        ("", "Bearer"),
        ("s3cret", None),
        ("s3cret", "Bearer wrong"),
        ("s3cret", "Bearer s3cret "),
        ("s3cret", "s3cret"),
        ("s3cret", "Bearer caf\xe9"),
    ],
)
def test_cron_without_its_secret_is_401(client, settings, stuck, secret, header):
    settings.CRON_SECRET = secret
    stuck()
    answer = client.get("/api/cron/cleanup-jobs/", headers={"Authorization": header} if header is not None else {})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert Job.objects.get().status == Status.RUNNING


def test_an_admins_key_is_not_the_cron_secret(as_op, settings, stuck):
    settings.CRON_SECRET = "s3cret"
    assert as_op.get("/api/cron/cleanup-jobs").status_code == 401


def test_looking_at_the_cron_route_does_nothing(client, settings, stuck):
    settings.CRON_SECRET = "s3cret"
    stuck()
    answer = client.head("/api/cron/cleanup-jobs", headers={"Authorization": "Bearer s3cret"})
    assert answer.status_code == 405
    assert Job.objects.get().status == Status.RUNNING
