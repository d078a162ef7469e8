"""CORS_ORIGINS: closed by default; a named front end may call with a key, never with our cookies."""

import pytest

pytestmark = pytest.mark.django_db
ORIGIN = "https://studio.example.com"


def ask(client, **headers):
    return client.options("/jobs", headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST", **headers})


def test_closed_by_default(as_ann):
    assert "Access-Control-Allow-Origin" not in as_ann.get("/jobs", headers={"Origin": ORIGIN}).headers
    assert "Access-Control-Allow-Origin" not in ask(as_ann).headers


def test_a_named_origin_may_call_with_a_key(as_ann, settings):
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]
    allowed = ask(as_ann, **{"Access-Control-Request-Headers": "authorization,content-type"})
    assert allowed.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "authorization" in allowed.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in allowed.headers
    answer = as_ann.get("/jobs", headers={"Origin": ORIGIN})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)
    other = as_ann.get("/jobs", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers
