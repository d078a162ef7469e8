"""The probes' answers; what makes them red is in tests/jobs/test_health.py."""

import pytest

from jobs import health
from jobsite import __version__
from tests.clients import ApiClient

pytestmark = pytest.mark.django_db


@pytest.fixture
def checks(monkeypatch):
    """checks(False) → the platform's health is this one check."""

    def make(ok: bool) -> None:
        monkeypatch.setattr(health, "report", lambda: [health.Check("disk", ok, "12 MiB free")])

    return make


@pytest.mark.parametrize(("ok", "status", "word"), [(True, 200, "ok"), (False, 503, "red")])
def test_health_is_one_word_and_a_status(client, checks, ok, status, word):
    checks(ok)
    for path in ("/health", "/health/"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (
            status,
            {"status": word, "checks": [{"code": "disk", "ok": ok}]},
        )


@pytest.mark.parametrize(
    ("scope", "told"), [(None, False), ("user", False), ("viewer", True), ("operator", True), ("admin", True)]
)
def test_details_are_for_operators(ann, checks, scope, told):
    checks(True)
    client = ApiClient(ann, scope) if scope else ApiClient()
    assert ("detail" in client.get("/health").json()["checks"][0]) is told


def test_livez_asks_nobody(client, django_assert_num_queries):
    with django_assert_num_queries(0):
        answer = client.get("/livez", headers={"Authorization": "Bearer wrong", "Accept": "text/plain"})
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


def test_readyz_names_what_it_needs(client):
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert [check["code"] for check in answer.json()["checks"]] == ["database", "storage", "migrations"]


def test_operators_read_the_dashboards_sentence_and_the_version(ann, checks):
    checks(False)
    told = ApiClient(ann, scope="viewer").get("/health").json()
    assert told["verdict"].startswith("The disk is nearly full")
    assert told["version"] == __version__
    assert {"verdict", "version"} & set(ApiClient(ann).get("/health").json()) == set()
