"""Downloads: whole, in part, never as a page, never silently wrong."""

import asyncio
import hashlib

import pytest
from asgiref.sync import sync_to_async
from django.core.files.storage import default_storage
from django.db import connections
from django.test import AsyncClient

from jobs import keys
from jobs.models import Artifact
from tests.clients import ApiClient, content

pytestmark = pytest.mark.django_db


def output(job, name: str = "dish.txt") -> str:
    return f"/api/jobs/{job.pk}/outputs/{name}/"


@pytest.fixture
def fetch(as_ann):
    """fetch(path, client=None, Range=…) → the answer, its body read into `read`: what is not read is not closed."""

    def get(path: str, client=None, method: str = "get", **headers: str):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = getattr(client or as_ann, method)(path, headers=named)
        answer.read = content(answer)
        return answer

    return get


def test_the_whole_file_with_what_proves_it(fetch, succeeded):
    answer = fetch(output(succeeded(b"0123456789")))
    assert (answer.status_code, answer.read) == (200, b"0123456789")
    assert answer.headers["ETag"] == f'"{hashlib.sha256(b"0123456789").hexdigest()}"'
    assert answer.headers["Content-Length"] == "10"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert "Last-Modified" in answer.headers
    assert "Content-Range" not in answer.headers


def test_head_tells_the_same_without_the_bytes(fetch, succeeded):
    job = succeeded()
    whole, head = fetch(output(job)), fetch(output(job), method="head")
    assert (head.status_code, head.read) == (200, b"")
    assert all(head.headers[name] == whole.headers[name] for name in ("Content-Length", "ETag", "Content-Type"))


@pytest.mark.parametrize(
    ("asked", "status", "wanted", "told"),
    [
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=7-999", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=0-", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=4-2", 200, b"0123456789", None),  # what is no range is ignored (RFC 9110, 14.2)
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=1-2,4-5", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_ranges(fetch, succeeded, asked, status, wanted, told):
    answer = fetch(output(succeeded()), Range=asked)
    assert (answer.status_code, answer.read, answer.headers.get("Content-Range")) == (status, wanted, told)
    assert answer.headers["Content-Length"] == str(len(wanted))


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_a_range_without_a_byte_is_416(fetch, succeeded, asked):
    answer = fetch(output(succeeded()), Range=asked)
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */10")
    assert answer.json()["status"] == 416


def test_a_range_of_another_version_is_ignored(fetch, succeeded):
    job = succeeded()
    tag = fetch(output(job), method="head").headers["ETag"]
    same = fetch(output(job), Range="bytes=0-1", If_Range=tag)
    other = fetch(output(job), Range="bytes=0-1", If_Range='"other"')
    assert (same.status_code, other.status_code) == (206, 200)
    assert fetch(output(job), If_None_Match=f'"x", {tag}').status_code == 304


def test_a_file_that_went_or_changed_is_410(fetch, succeeded):
    job = succeeded()
    key = Artifact.objects.get().key
    with open(default_storage.path(key), "ab") as file:
        file.write(b"x")
    assert fetch(output(job)).status_code == 410
    assert fetch(output(job)).json()["code"] == "output_gone"
    default_storage.delete(key)
    assert fetch(output(job)).json()["code"] == "output_gone"


def test_what_is_not_there_is_404(fetch, as_ann, as_bob, succeeded, submit):
    job = succeeded()
    for client, path in ((as_ann, output(job, "other")), (as_bob, output(job)), (as_ann, output(submit()))):
        answer = fetch(path, client)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("accept", ["video/mp4", "text/html", "*/*"])
def test_any_accept_header_will_do(fetch, succeeded, accept):
    assert fetch(output(succeeded()), Accept=accept).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_under_asgi_it_comes_in_pieces(ann, succeeded):
    made = bytes(range(256)) * 4096  # 1 MiB: four pieces
    job, secret = succeeded(made), keys.issue(ann, "asgi")[1]

    async def pieces() -> list[bytes]:
        answer = await AsyncClient().get(output(job), headers={"Authorization": f"Bearer {secret}"})
        assert answer.is_async
        read = [piece async for piece in answer]
        await sync_to_async(connections.close_all)()  # the view ran in a thread of its own
        return read

    received = asyncio.run(pieces())
    assert b"".join(received) == made
    assert len(received) == 4


def test_viewers_may_look_at_outputs(fetch, bob, succeeded):
    assert fetch(output(succeeded()), ApiClient(bob, "viewer")).status_code == 200
