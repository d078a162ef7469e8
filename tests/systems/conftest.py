"""The four systems' documents against live processes: web, worker, upkeep worker, broker and Beat."""

import json
import urllib.error
import urllib.request

import pytest

from jobs import keys
from tests.faults import rig
from tests.waiting import until

ADMIN_KEY = "an-admin-key-of-24-chars"


def pytest_collection_modifyitems(items):
    for item in items:
        if "/systems/" in str(item.path):
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.django_db(transaction=True))


class Caller:
    """Calls the platform as the documents' curl lines do: a body goes out as curl's `-d` sends it."""

    def __init__(self, address: str, **headers: str):
        self.address, self.headers = address, headers

    def __call__(self, method: str, path: str, body: str | bytes | None = None, **headers: str):
        """(status, JSON) of one request."""
        data = body.encode() if isinstance(body, str) else body
        request = urllib.request.Request(self.address + path, data=data, method=method)
        if body is not None:
            request.add_header("Content-Type", "application/x-www-form-urlencoded")
        for name, value in (self.headers | headers).items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def upload(self, path: str, name: str, content: bytes, content_type: str = "application/octet-stream"):
        """(status, JSON) of `curl -F file=@name`."""
        edge = "----jobsite"
        head = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        body = f"{head}Content-Type: {content_type}\r\n\r\n".encode() + content + f"\r\n--{edge}--\r\n".encode()
        return self("POST", path, body, **{"Content-Type": f"multipart/form-data; boundary={edge}"})

    def download(self, url: str) -> bytes:
        request = urllib.request.Request(url, headers=self.headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()

    def wait(self, path: str, done, seconds: float = 40.0):
        """Ask `path` until `done(answer)`; the answer."""
        seen = {}

        def asked():
            seen["answer"] = self("GET", path)[1]
            return done(seen["answer"])

        try:
            until(asked, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{path} stays {seen}") from error
        return seen["answer"]


@pytest.fixture
def platform(transactional_db):
    """Broker and web run; start the rest as the test needs it."""
    made = rig.Platform(ADMIN_API_KEY=ADMIN_KEY, CRON_SECRET="a-cron-secret")
    try:
        made.broker()
        made.web()
        yield made
        rig.at_rest()
    finally:
        made.close()


@pytest.fixture
def ann_calls(platform, ann):
    return Caller(platform.address, Authorization=f"Bearer {keys.issue(ann, 'test')[1]}")


@pytest.fixture
def op_calls(platform, op):
    return Caller(platform.address, Authorization=f"Bearer {keys.issue(op, 'test', 'admin')[1]}")


@pytest.fixture
def queue_calls(platform, op):
    """With the ingestion queue's admin key, which acts as Op."""
    return Caller(platform.address, X_Admin_Key=ADMIN_KEY)
