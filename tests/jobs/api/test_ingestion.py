"""The operator's own files are for operators: INGEST's `path` and `s3_key`, and the queue's addresses."""

import pytest

from jobs.models import Job
from tests.clients import ApiClient, codes

pytestmark = pytest.mark.django_db
VIDEO = {"kind": "INGEST", "params": {"source_type": "s3", "s3_key": "videos/a.mp4"}}


def test_a_user_names_no_file_of_the_operators(as_ann):
    answer = as_ann.send("/api/jobs/", VIDEO)
    assert (answer.status_code, codes(answer)) == (400, {"params.s3_key": "not_allowed"})
    local = {"kind": "INGEST", "params": {"source_type": "path", "path": "a.mp4"}}
    assert codes(as_ann.send("/api/jobs/", local)) == {"params.path": "not_allowed"}
    assert not Job.objects.exists()


def test_operators_do(op):
    assert ApiClient(op, "operator").send("/api/jobs/", VIDEO).status_code == 202


@pytest.mark.parametrize(
    ("sent", "status"),
    [({}, 401), ({"X_Admin_Key": "wrong"}, 401), ({"X_Admin_Key": "an-admin-key-of-24-chars"}, 200)],
)
def test_the_admin_key(op, settings, sent, status):
    settings.ADMIN_API_KEY = "an-admin-key-of-24-chars"
    assert ApiClient().send("/api/ingest/stats", method="GET", **sent).status_code == status


def test_a_key_with_the_admin_scope_is_an_admin_key_and_one_without_is_not(op, ann):
    from jobs import keys

    for scope, status in (("admin", 200), ("operator", 403), ("user", 403)):
        key = keys.issue(op, "test", scope)[1]
        assert ApiClient().send("/api/ingest/stats", method="GET", X_Admin_Key=key).status_code == status


def test_without_a_superuser_the_admin_key_acts_as_nobody(ann, settings):
    settings.ADMIN_API_KEY = "an-admin-key-of-24-chars"
    answer = ApiClient().send("/api/ingest/stats", method="GET", X_Admin_Key=settings.ADMIN_API_KEY)
    assert answer.status_code == 401
