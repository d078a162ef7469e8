"""The job's addresses: one shape everywhere, money told from the ledger, other people's jobs not there."""

import copy
import uuid
from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jobs import keys, lifecycle, queries
from jobs.api import objects
from jobs.engines import process
from jobs.errors import ErrorCode, JobError
from jobs.models import ApiKey, Job, JobEvent, Status
from tests.clients import ApiClient, codes
from tokens import ledger
from tokens.models import Account, Transaction

pytestmark = pytest.mark.django_db
KITCHEN = {"kind": "KITCHEN", "params": {"price": 10}}


def balance(person) -> int:
    return Account.objects.get(pk=person.pk).balance


# --- submit --------------------------------------------------------------------------------------------------------


def test_submit_answers_202_with_the_job_and_where_it_is(ann, as_ann):
    answer = as_ann.send("/api/jobs/", {**KITCHEN, "metadata": {"order": 7}})
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"].endswith(f"/api/jobs/{job['id']}/")
    assert answer.headers["Retry-After"] == "1"
    assert (job["status"], job["queue_position"], job["metadata"]) == ("QUEUED", 1, {"order": 7})
    assert job["cost"] == {"estimate": 10, "charged": 10, "refunded": 0}
    assert job["params"]["seconds"] == 0.0  # the defaults are told
    assert balance(ann) == 990


def test_every_answer_has_one_shape(as_ann, submit):
    job = submit()
    created = as_ann.send("/api/jobs/", KITCHEN).json()
    listed = as_ann.get("/api/jobs/").json()["results"][0]
    cancelled = as_ann.send(f"/api/jobs/{job.pk}/cancel/").json()
    detail = as_ann.get(f"/api/jobs/{job.pk}/").json()
    shape = list(objects.JobObject().fields)
    assert [list(found) for found in (created, listed, cancelled)] == [shape] * 3
    assert list(detail) == [*shape, "attempts"] == list(objects.JobDetailObject().fields)
    assert list(detail["error"]) == list(objects.ErrorObject().fields)
    assert list(detail["cost"]) == list(objects.CostObject().fields)


def test_too_few_tokens_is_402_and_writes_nothing(ann, as_ann):
    ledger.charge(ann.pk, 995, reference="other")
    answer = as_ann.send("/api/jobs/", KITCHEN)
    assert (answer.status_code, answer.json()["code"]) == (402, "insufficient_tokens")
    assert (Job.objects.count(), balance(ann)) == (0, 5)


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"kind": "NOPE"}, "kind", "unknown_kind"),
        ({"kind": "kitchen"}, "kind", "unknown_kind"),
        ({"kind": 7}, "kind", "invalid"),
        ({"kind": None}, "kind", "null"),
        ({"params": []}, "params", "not_a_dict"),
        ({"params": {"seconds": -1}}, "params.seconds", "min_value"),
        ({"params": {"seconds": "1_0"}}, "params.seconds", "invalid"),
        ({"params": {"price": True}}, "params.price", "invalid"),
        ({"params": {"price": 1.5}}, "params.price", "invalid"),
        ({"params": {"stall": "yes"}}, "params.stall", "invalid"),
        ({"params": {"code": 5}}, "params.code", "invalid"),
        ({"params": {"colour": 1}}, "params.colour", "unknown_field"),
        ({"priority": 1}, "priority", "not_allowed"),
        ({"max_attempts": 11}, "max_attempts", "max_value"),
        ({"max_attempts": 0}, "max_attempts", "min_value"),
        ({"metadata": {"x": "y" * 5000}}, "metadata", "too_large"),
        ({"metadata": "x"}, "metadata", "not_a_dict"),
    ],
)
def test_bad_requests_name_the_field_and_write_nothing(ann, as_ann, change, field, code):
    answer = as_ann.send("/api/jobs/", KITCHEN | change)
    assert (answer.status_code, codes(answer)) == (400, {field: code})
    assert (Job.objects.count(), balance(ann)) == (0, 1000)


def test_all_fields_are_named_at_once(as_ann):
    params = {"seconds": -1, "price": "x", "fail_times": 101}
    of_params = {"params.seconds": "min_value", "params.price": "invalid", "params.fail_times": "max_value"}
    assert codes(as_ann.send("/api/jobs/", {"kind": "KITCHEN", "params": params})) == of_params
    for path in ("/api/jobs/", "/api/jobs/estimate/"):
        assert codes(as_ann.send(path, {"kind": "KITCHEN", "params": params, "colour": 1})) == {
            **of_params,
            "colour": "unknown_field",
        }


def test_list_items_are_named_by_number(as_ann):
    clips = ["upload:" + str(uuid.uuid4()), "../../etc/passwd"]
    answer = as_ann.send("/api/jobs/", {"kind": "STITCH", "params": {"clips": clips}})
    assert codes(answer) == {"params.clips.1": "invalid"}
    answer = as_ann.send("/api/jobs/", {"kind": "STITCH", "params": {"clips": [clips[0]] * 201}})
    assert codes(answer) == {"params.clips": "max_length"}


def test_operators_may_set_a_priority(as_op, op):
    ledger.grant(op.pk, 100, reason="test")
    assert as_op.send("/api/jobs/", {**KITCHEN, "priority": 10}).status_code == 202
    assert Job.objects.get().priority == 10


def test_the_price_has_bounds(as_ann, monkeypatch):
    for price in (1_000_001, -1, 1.0):
        monkeypatch.setattr("tests.kitchen.Kitchen.price", lambda self, params, price=price: price)
        answer = as_ann.send("/api/jobs/", KITCHEN)
        assert (answer.status_code, codes(answer)) == (400, {"params": "price_out_of_range"})


def test_estimate_prices_and_writes_nothing(ann, as_ann):
    answer = as_ann.send("/api/jobs/estimate", KITCHEN)
    assert (answer.status_code, answer.json()["cost"]) == (200, {"estimate": 10})
    assert codes(as_ann.send("/api/jobs/estimate", {"kind": "KITCHEN", "params": {"price": -1}})) == {
        "params.price": "min_value"
    }
    assert (Job.objects.count(), balance(ann)) == (0, 1000)


# --- idempotency ---------------------------------------------------------------------------------------------------


def test_the_same_key_and_body_make_one_job(ann, as_ann, settings):
    first = as_ann.send("/api/jobs/", KITCHEN, Idempotency_Key="k 1")
    settings.JOBSITE = {**settings.JOBSITE, "JOBS_PER_USER": 1}  # a replay is answered however full it is
    again = as_ann.send("/api/jobs/", b'{"params": {"price": 10}, "kind": "KITCHEN"}', Idempotency_Key="k 1")
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.json()["id"] == first.json()["id"]
    assert "Idempotent-Replayed" not in first.headers
    assert balance(ann) == 990


def test_a_key_with_another_body_is_422(as_ann):
    as_ann.send("/api/jobs/", KITCHEN, Idempotency_Key="k1")
    answer = as_ann.send("/api/jobs/", {"kind": "KITCHEN", "params": {"price": 9}}, Idempotency_Key="k1")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", " x", "a\tb"])
def test_a_key_that_is_no_key_is_refused(as_ann, key):
    answer = as_ann.send("/api/jobs/", KITCHEN, Idempotency_Key=key)
    assert (answer.status_code, codes(answer)) == (400, {"Idempotency-Key": "invalid"})


# --- brakes --------------------------------------------------------------------------------------------------------


def test_too_many_active_jobs_is_429(as_ann, submit, settings):
    settings.JOBSITE = {**settings.JOBSITE, "JOBS_PER_USER": 2}
    submit(), submit()
    answer = as_ann.send("/api/jobs/", KITCHEN)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_jobs")
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["retryable"] is True
    lifecycle.cancel(Job.objects.first().pk, by="test")
    assert as_ann.send("/api/jobs/", KITCHEN).status_code == 202


def test_too_many_submits_a_second_is_429(as_ann, bob, submit, settings, long_seconds):
    settings.JOBSITE = {**settings.JOBSITE, "SUBMITS_PER_SECOND": 2}
    submit(), submit(), submit(bob)
    answer = as_ann.send("/api/jobs/", KITCHEN)
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert answer.headers["Retry-After"] == "1"


def test_a_full_disk_is_507(as_ann, settings):
    settings.JOBSITE = {**settings.JOBSITE, "DISK_FREE_BYTES": 2**60}
    answer = as_ann.send("/api/jobs/", KITCHEN)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert "Retry-After" in answer.headers


def test_production_without_media_walls_takes_no_media(as_ann, settings, monkeypatch):
    monkeypatch.setattr(process, "walls", lambda: process.Walls(missing=["unshare"]))
    render = {"kind": "RENDER", "params": {"prompt": "a harbour"}}
    assert as_ann.send("/api/jobs/", render).status_code == 202
    settings.PRODUCTION = True
    answer = as_ann.send("/api/jobs/", render)
    assert (answer.status_code, answer.json()["code"]) == (503, "sandbox_missing")
    assert as_ann.send("/api/jobs/", KITCHEN).status_code == 202  # reads no media
    settings.JOBSITE = {**settings.JOBSITE, "MEDIA_WALLS": "best_effort"}
    assert as_ann.send("/api/jobs/", render).status_code == 202


# --- watch ---------------------------------------------------------------------------------------------------------


def test_detail_tells_attempts_error_and_refund(ann, as_ann, running):
    lease = running(max_attempts=2)
    lifecycle.fail(lease, JobError(ErrorCode.internal_error, "First try."))
    Job.objects.update(run_after=Now())
    waiting = as_ann.get(f"/api/jobs/{lease.job_id}/").json()
    assert (waiting["status"], waiting["error"]["refunded"], waiting["cost"]["refunded"]) == ("RETRY", False, 0)
    lifecycle.fail(lifecycle.claim("cpu"), JobError(ErrorCode.internal_error, "Second try."), stages=[("cooking", 1.5)])
    job = as_ann.get(f"/api/jobs/{lease.job_id}/").json()
    assert job["status"] == "FAILED"
    assert job["message"] == "Second try."
    assert job["error"] == {
        "code": "internal_error",
        "message": "Second try.",
        "retryable": True,
        "refunded": True,
        "docs": job["error"]["docs"],
    }
    assert job["error"]["docs"].endswith("/api/docs/errors/#internal_error")
    assert job["cost"] == {"estimate": 10, "charged": 10, "refunded": 10}
    assert [(tried["attempt"], tried["status"], tried["message"]) for tried in job["attempts"]] == [
        (1, "RETRY", "First try."),
        (2, "FAILED", "Second try."),
    ]
    assert [tried["stages"] for tried in job["attempts"]] == [[], [{"name": "cooking", "seconds": 1.5}]]
    for tried in job["attempts"]:  # as times: as texts, one of a whole second has no fraction
        began, ended = (datetime.fromisoformat(tried[name]) for name in ("started_at", "finished_at"))
        assert began <= ended


def test_a_retried_job_tells_all_rounds(as_ann, running):
    lease = running(max_attempts=1)
    lifecycle.fail(lease, JobError(ErrorCode.ffmpeg_error))
    answer = as_ann.send(f"/api/jobs/{lease.job_id}/retry/")
    assert (answer.status_code, answer.json()["status"]) == (202, "QUEUED")
    assert answer.json()["cost"] == {"estimate": 10, "charged": 20, "refunded": 10}
    assert answer.json()["error"] is None
    again = as_ann.send(f"/api/jobs/{lease.job_id}/retry/")
    assert (again.status_code, again.json()["code"]) == (409, "job_not_failed")


def test_queue_places_follow_priority_then_time(as_ann, submit):
    first, second, urgent = submit(), submit(), submit(priority=5)
    Job.objects.filter(pk=first.pk).update(
        run_after=timezone.now() - timedelta(seconds=1)
    )  # those of one ms share a place
    places = {job.pk: as_ann.get(f"/api/jobs/{job.pk}/").json()["queue_position"] for job in (first, second, urgent)}
    assert places[urgent.pk] == 1
    assert places[first.pk] == 2
    assert places[second.pk] == 3


@pytest.mark.parametrize(
    ("queue", "progress", "seconds", "hint"),
    [("gpu", 0, 16, "warming_gpu"), ("gpu", 0, 5, None), ("gpu", 0.1, 16, None), ("cpu", 0, 16, None)],
)
def test_a_cold_start_is_told(as_ann, running, queue, progress, seconds, hint):
    lease = running()
    started = timezone.now() - timedelta(seconds=seconds)
    Job.objects.filter(pk=lease.job_id).update(queue=queue, progress=progress, started_at=started)
    assert as_ann.get(f"/api/jobs/{lease.job_id}/").json()["status_hint"] == hint


# --- list ----------------------------------------------------------------------------------------------------------


def test_pages_are_stable_and_end(as_ann, submit):
    jobs = [str(submit(price=0).pk) for _ in range(5)]
    page = as_ann.get("/api/jobs/?limit=2").json()
    submit(price=0)  # what comes meanwhile moves nothing
    seen = [job["id"] for job in page["results"]]
    while page["next"]:
        page = as_ann.get(page["next"]).json()
        seen += [job["id"] for job in page["results"]]
    assert seen == sorted(jobs, reverse=True)


def test_filters(as_ann, submit):
    old, new = submit(), submit()
    lifecycle.cancel(old.pk, by="test")
    Job.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(hours=1))

    def found(query: str) -> set:
        return {job["id"] for job in as_ann.get(f"/api/jobs/?{query}").json()["results"]}

    assert found("status=CANCELED") == {str(old.pk)}
    assert found("status=CANCELED&status=QUEUED") == {str(old.pk), str(new.pk)}
    assert found("kind=RENDER") == set()
    assert found("kind=KITCHEN&status=QUEUED") == {str(new.pk)}
    created = as_ann.get(f"/api/jobs/{new.pk}/").json()["created_at"]
    assert found(f"created_after={created}") == {str(new.pk)}
    assert found(f"created_before={created}") == {str(old.pk)}
    for first in ("0001-01-01", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00%2B14:00"):
        assert (len(found(f"created_after={first}")), found(f"created_before={first}")) == (2, set())
    last = "9999-12-31T23:59:59.999999-14:00"
    assert (found(f"created_after={last}"), len(found(f"created_before={last}"))) == (set(), 2)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("cursor=x", "cursor"),
        ("status=NOPE", "status"),
        ("created_after=yesterday", "created_after"),
        ("created_before=", "created_before"),
        ("kind=%00", "kind"),
        ("search=colour:red", "search"),
        ("search=%00", "search"),
        (f"search={'x' * 501}", "search"),
        ("owner=1", "owner"),
    ],
)
def test_a_bad_query_names_its_parameter(as_ann, query, field):
    answer = as_ann.get(f"/api/jobs/?{query}")
    assert (answer.status_code, list(codes(answer))) == (400, [field])


# --- cancel, delete ------------------------------------------------------------------------------------------------


def test_cancel_refunds_and_a_second_answers_the_same(ann, as_ann, running):
    lease = running()
    first, second = (as_ann.send(f"/api/jobs/{lease.job_id}/cancel") for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert first.json()["status"] == "CANCELED"
    assert first.json()["cost"]["refunded"] == 10
    assert first.json()["error"]["code"] == "user_canceled"
    assert balance(ann) == 1000


def test_cancel_of_a_final_job_is_409(ann, as_ann, succeeded):
    answer = as_ann.send(f"/api/jobs/{succeeded().pk}/cancel/")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_is_final")
    assert balance(ann) == 990


def test_delete_of_a_live_job_cancels_it_and_keeps_the_ledger(ann, as_ann, running):
    job_id = running().job_id
    answer = as_ann.delete(f"/api/jobs/{job_id}/")
    assert (answer.status_code, answer.content) == (204, b"")
    assert as_ann.get(f"/api/jobs/{job_id}/").status_code == 404
    assert JobEvent.objects.count() == 0
    assert [line.kind for line in Transaction.objects.filter(reference=f"job:{job_id}:1")] == ["REFUND", "CHARGE"]
    assert balance(ann) == 1000


# --- who -----------------------------------------------------------------------------------------------------------


def test_without_a_key_nothing_is_told(client):
    answer = client.get("/api/jobs/")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json()["code"] == "not_authenticated"


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer js_wrong", "Basic eDp5", "Bearer " + "x" * 300, "é"])
def test_a_key_that_is_none_is_401(client, db, header):
    answer = client.get("/api/jobs/", headers={"Authorization": header})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_expired_and_revoked_keys_and_inactive_owners_are_401(ann, as_ann):
    _, expired = keys.issue(ann, "old", expires_at=timezone.now() - timedelta(seconds=1))
    assert ApiClient(headers={"Authorization": f"Bearer {expired}"}).get("/api/jobs/").status_code == 401
    assert as_ann.get("/api/jobs/").status_code == 200
    ApiKey.objects.update(revoked_at=Now())
    assert as_ann.get("/api/jobs/").status_code == 401
    ApiKey.objects.update(revoked_at=None)
    ann.is_active = False
    ann.save()
    assert as_ann.get("/api/jobs/").status_code == 401


def test_use_of_a_key_is_noted_once_a_minute(as_ann):
    as_ann.get("/api/tokens/")
    first = ApiKey.objects.get().last_used_at
    assert first is not None
    as_ann.get("/api/tokens/")
    assert ApiKey.objects.get().last_used_at == first


@pytest.mark.django_db(transaction=True)
def test_a_database_that_only_reads_is_read_with_a_key(as_ann, submit):
    job = submit()
    read_only = {"sqlite": "PRAGMA query_only = ON", "postgresql": "SET default_transaction_read_only = on"}
    with connection.cursor() as cursor:
        cursor.execute(read_only[connection.vendor])
    try:
        assert as_ann.get(f"/api/jobs/{job.pk}/").status_code == 200
        assert as_ann.send("/api/jobs/", KITCHEN).status_code == 503
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("scope", "sees", "acts"),
    [
        ("user", 404, 404),
        ("viewer", 200, 403),
        ("finance", 200, 403),
        ("operator", 200, 200),
        ("admin", 200, 200),
    ],
)
def test_scopes(bob, submit, scope, sees, acts):
    job, client = submit(), ApiClient(bob, scope)
    assert client.get(f"/api/jobs/{job.pk}/").status_code == sees
    assert len(client.get("/api/jobs/").json()["results"]) == (sees == 200)
    assert client.send(f"/api/jobs/{job.pk}/retry/").status_code == {404: 404, 403: 403, 200: 409}[acts]
    assert client.send(f"/api/jobs/{job.pk}/cancel/").status_code == acts
    assert client.delete(f"/api/jobs/{job.pk}/").status_code == (204 if acts == 200 else acts)
    assert (Job.objects.filter(pk=job.pk, status=Status.QUEUED).count() == 1) == (acts != 200)


def test_a_staff_session_without_rights_sees_only_its_own(user, client, submit):
    clerk = user("clerk", is_staff=True)
    client.force_login(clerk)
    assert client.get(f"/api/jobs/{submit().pk}/").status_code == 404


def test_a_superusers_session_sees_all(op, client, submit):
    client.force_login(op)
    assert client.get(f"/api/jobs/{submit().pk}/").status_code == 200


# --- what it costs -------------------------------------------------------------------------------------------------


def test_detail_takes_at_most_six_queries_with_authentication(as_ann, submit, succeeded, running):
    failed = running(max_attempts=1)
    lifecycle.fail(failed, JobError(ErrorCode.ffmpeg_error))
    for job_id in (submit().pk, succeeded().pk, failed.job_id):
        for _ in range(2):  # the key's first use is noted
            with CaptureQueriesContext(
                connection,
            ) as asked:
                assert as_ann.get(f"/api/jobs/{job_id}/").status_code == 200
            assert len(asked) <= 6, asked.captured_queries


def test_a_list_of_fifty_takes_at_most_six_queries(as_ann, submit, succeeded):
    for _ in range(5):
        succeeded()
    for _ in range(45):
        submit()
    with CaptureQueriesContext(connection) as asked:
        assert len(as_ann.get("/api/jobs/?limit=50").json()["results"]) == 50
    assert len(asked) <= 6, asked.captured_queries


def test_costs_are_read_by_index(ann, submit):
    jobs = [submit() for _ in range(3)]
    filler = Transaction(account_id=ann.pk, kind="GRANT", amount=1, balance_after=1)
    Transaction.objects.bulk_create([copy.copy(filler) for _ in range(3000)])
    with CaptureQueriesContext(connection) as asked:
        queries.costs(jobs)
    explain = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN "
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # does so by itself, in time; SQLite is never asked to
            cursor.execute("ANALYZE tokens_transaction")
        cursor.execute(explain + asked.captured_queries[0]["sql"])
        plan = "\n".join(str(row) for row in cursor.fetchall())
    assert "transaction_one_charge_per_reference" in plan
    assert "Seq Scan" not in plan
    assert "SCAN " not in plan
