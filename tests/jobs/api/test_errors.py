"""One error shape, whatever went wrong and wherever."""

import re
from pathlib import Path

import pytest
from django.conf import settings as configured
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import IntegrityError, InterfaceError, InternalError, OperationalError
from django.http import Http404
from rest_framework import exceptions

from jobs import queries
from jobs.api.schema import Problem
from jobs.errors import ErrorCode, JobError, Refused

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("error", "status", "code", "retryable"),
    [
        (Refused(ErrorCode.job_is_final), 409, "job_is_final", False),
        (JobError(ErrorCode.bad_input, "No."), 400, "bad_input", False),
        (Http404(), 404, "not_found", False),
        (PermissionDenied(), 403, "permission_denied", False),
        (RequestDataTooBig(), 413, "too_large", False),
        (SuspiciousOperation(), 400, "invalid_request", False),
        (exceptions.NotAcceptable(), 406, "not_acceptable", False),
        (exceptions.Throttled(wait=7.2), 429, "rate_limited", True),
        (OperationalError("gone"), 503, "database_unavailable", True),
        (InterfaceError("closed"), 503, "database_unavailable", True),
        (InternalError("read-only"), 503, "database_unavailable", True),
        (IntegrityError("secret detail"), 500, "internal_error", True),
        (ZeroDivisionError("secret detail"), 500, "internal_error", True),
    ],
)
def test_every_exception_becomes_a_problem(as_ann, monkeypatch, error, status, code, retryable):
    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr(queries, "jobs_for", broken)
    answer = as_ann.get("/api/jobs/", headers={"X-Request-Id": "abc-1"})
    problem = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert list(problem) == list(Problem().fields)
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["retryable"] is retryable
    assert problem["request_id"] == answer.headers["X-Request-Id"] == "abc-1"
    assert problem["docs"].endswith(f"/api/docs/errors/#{code}")
    assert "secret" not in answer.content.decode()
    if status in (429, 503):
        assert int(answer.headers["Retry-After"]) >= 5


def test_a_fault_of_ours_is_logged_with_its_request(as_ann, monkeypatch, caplog):
    monkeypatch.setattr(queries, "jobs_for", lambda *args, **kwargs: 1 / 0)
    answer = as_ann.get("/api/jobs/")
    record = next(record for record in caplog.records if record.name == "jobs.api.errors")
    assert answer.headers["X-Request-Id"] in record.getMessage()
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("path", ["/api/nothing", "/api/jobs/1/", "/api/jobs/x/cancel/", "/api/"])
def test_unknown_addresses_under_api_are_json(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_foreign_host_is_json_too(client):
    answer = client.get("/api/jobs/", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert b"evil" not in answer.content


def test_elsewhere_pages_stay_pages(client):
    assert client.get("/nothing").headers["Content-Type"].startswith("text/html")


def test_a_wrong_method_says_which_are_right(as_ann):
    answer = as_ann.send("/api/jobs/", {}, method="PUT")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, POST, HEAD"


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\nb", "<x>"])
def test_a_strange_request_id_is_replaced(as_ann, given):
    answer = as_ann.get("/api/tokens/", headers={"X-Request-Id": given})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])


@pytest.mark.parametrize(("path", "status"), [("/api/jobs/", 401), ("/my/jobs/", 302), ("/sign-in/", 200)])
def test_a_session_that_cannot_be_one_is_none(client, path, status):
    assert client.get(path, headers={"Cookie": r'sessionid="\000aaaaaaaaaaaa"'}).status_code == status


def test_the_page_of_codes_has_them_all(client):
    page = client.get("/api/docs/errors/").content.decode()
    assert all(f'id="{code.name}"' in page for code in ErrorCode)


def test_docs_list_every_code_as_the_table_has_it():
    """docs/errors.md: | `code` | HTTP | retried | refunded | sentence | advice |"""
    lines = (Path(configured.BASE_DIR) / "docs/errors.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    assert rows == [
        [
            f"`{code.name}`",
            str(code.row.http),
            "yes" if code.row.retryable else "no",
            "yes" if code.row.refund else "no",
            code.row.sentence,
            code.row.advice,
        ]
        for code in ErrorCode
    ]
