"""JSON that Python's parser would take and a database or a price would choke on."""

import pytest
from rest_framework.exceptions import ParseError

from jobs.api.parsers import MOST_BYTES, parse


@pytest.mark.parametrize("body", [b"", b" \n", b"{}", b'{"a": [1, -1.5e3, "\xc3\xa9", null, true, {"b": {}}]}'])
def test_takes(body):
    assert isinstance(parse(body), dict)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"x"',
        b"7",
        b"null",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 9223372036854775808}',
        b'{"a": -9223372036854775808}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": 1, "a": 2}',
        b'{"a": "\\u0000"}',
        b'{"\\u0000": 1}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b'\xff\xfe{\x00"\x00',
        b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"a": ' + b"[" * 400_000 + b"]" * 400_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
)
def test_refuses(body):
    with pytest.raises(ParseError):
        parse(body)


@pytest.mark.parametrize(
    ("body", "status"), [(b'{"kind": "' + b"x" * MOST_BYTES + b'"}', 413), (b'{"kind": NaN}', 400), (b"{", 400)]
)
def test_refusals_are_problems(as_ann, body, status):
    answer = as_ann.send("/api/jobs/", body)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_another_type_of_content_is_415(as_ann):
    answer = as_ann.generic("POST", "/api/jobs/", b"kind=KITCHEN", content_type="application/x-www-form-urlencoded")
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
