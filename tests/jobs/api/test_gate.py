"""What is refused before a body is read to disk."""

import asyncio
import json

import pytest

from jobs import keys
from jobs.api.gate import FORM_BYTES, BodyGate

BIG = 2 * 1024**2


async def django(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def ask(path: str = "/api/uploads/", **headers: str) -> tuple[int, dict, dict]:
    """(status, headers, JSON) of a POST whose body is never sent: nobody may wait for it."""
    sent = []

    async def receive():
        raise AssertionError("the body was read")

    async def send(message):
        sent.append(message)

    wire = [(name.lower().replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": wire}
    asyncio.run(BodyGate(django)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])


@pytest.mark.parametrize("path", ["/api/jobs/", "/admin/"])
def test_bodies_have_a_limit(path):
    assert ask(path, Content_Length=str(FORM_BYTES))[0] == 200
    for length in (str(FORM_BYTES + 1), "x", "-1", "9" * 30):
        status, _, problem = ask(path, Content_Length=length)
        assert (status, problem["code"]) == (413, "too_large")


def test_a_body_must_say_its_length():
    status, headers, problem = ask("/api/jobs/", Transfer_Encoding="chunked")
    assert (status, problem["status"], problem["code"]) == (411, 411, "invalid_request")
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"x-request-id"].decode() == problem["request_id"]


def test_uploads_have_their_own_limit(settings):
    settings.JOBSITE = {**settings.JOBSITE, "UPLOAD_MAX_BYTES": 10 * BIG}
    assert ask(Content_Length=str(11 * BIG))[0] == 413
    assert ask("/api/uploads", Content_Length=str(11 * BIG))[0] == 413


@pytest.mark.django_db(transaction=True)
def test_a_large_upload_needs_a_key_or_session_first(ann, client):
    size = str(BIG)
    assert ask(Content_Length=size)[0] == 401
    assert ask(Content_Length=size, Authorization="Bearer js_wrong")[0] == 401
    assert ask(Content_Length=size, Authorization="Bearer " + keys.issue(ann, "x")[1])[0] == 200
    for cookie in ("sessionid=wrong", r'sessionid="\000wrong"'):
        assert ask(Content_Length=size, Cookie=cookie)[0] == 401
    client.force_login(ann)
    assert ask(Content_Length=size, Cookie=f"sessionid={client.cookies['sessionid'].value}")[0] == 200


@pytest.mark.django_db(transaction=True)
def test_a_large_upload_needs_room(ann, settings):
    settings.JOBSITE = {**settings.JOBSITE, "DISK_FREE_BYTES": 2**60}
    status, headers, problem = ask(Content_Length=str(BIG), Authorization="Bearer " + keys.issue(ann, "x")[1])
    assert (status, problem["code"]) == (507, "storage_full")
    assert b"retry-after" in headers
