"""HTTP clients of the API for tests: by key, as any program would come."""

from typing import Any

from django.test import Client

from jobs import keys


class ApiClient(Client):
    """Django's client with a key and JSON bodies; `scope` is the key's."""

    def __init__(self, owner=None, scope: str = "user", **options):
        headers = dict(options.pop("headers", None) or {})
        if owner is not None:
            headers["Authorization"] = f"Bearer {keys.issue(owner, 'test', scope)[1]}"
        super().__init__(headers=headers, raise_request_exception=False, **options)

    def send(self, path: str, body: Any = None, *, method: str = "POST", **headers: str):
        """Send `body` as JSON (bytes as they are); keyword arguments are headers with _ for -."""
        return self.generic(
            method,
            path,
            body if isinstance(body, (bytes, str)) else b"" if body is None else self._encode_json(body, self.JSON),
            content_type=self.JSON if body is not None else "",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    JSON = "application/json"


def codes(response) -> dict[str, str]:
    """Field → code of a problem's errors."""
    assert response.headers["Content-Type"] == "application/problem+json", response.content
    return {error["field"]: error["code"] for error in response.json()["errors"]}


def content(response) -> bytes:
    """The answer's bytes, however it sends them; what is not read is not closed."""
    return b"".join(response.streaming_content) if response.streaming else response.content
