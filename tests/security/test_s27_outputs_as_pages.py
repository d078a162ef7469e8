"""S27: an output is a file to keep; no browser runs what is in it on our origin."""

import pytest

pytestmark = pytest.mark.django_db
PAGE = b"<!doctype html><script>alert(document.domain)</script>"


@pytest.mark.parametrize(
    ("name", "content_type", "told"),
    [
        ("x.html", "text/html", "application/octet-stream"),
        ("x.svg", "image/svg+xml", "application/octet-stream"),
        ("x.xml", "application/xml", "application/octet-stream"),
        ("x.js", "text/javascript", "application/octet-stream"),
        ("x.xhtml", "application/xhtml+xml", "application/octet-stream"),
        ("x.pdf", "application/pdf", "application/octet-stream"),
        ("x.mp4", "video/mp4", "video/mp4"),  # a video by its name, a page by its bytes: nosniff decides
        ("x.mp4", "text/html; charset=utf-8", "application/octet-stream"),
        ("x.html", "text/plain", "text/plain"),
    ],
)
def test_no_output_is_shown_as_a_page(as_ann, succeeded, name, content_type, told):
    job = succeeded(PAGE, name, content_type)
    for headers in ({}, {"Range": "bytes=0-20"}, {"Accept": "text/html"}):
        answer = as_ann.get(f"/api/jobs/{job.pk}/outputs/{name}/", headers=headers)
        assert b"".join(answer.streaming_content) in (PAGE, PAGE[:21])
        assert answer.headers["Content-Type"] == told
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"


@pytest.mark.parametrize("name", ['a"b.txt', "a\r\nSet-Cookie: x=1.txt", "a\u202etxt.exe", "é.txt", "a;b=c.txt"])
def test_a_name_cannot_write_headers(as_ann, succeeded, name):
    from urllib.parse import quote

    from jobs.models import Artifact

    job = succeeded()
    Artifact.objects.update(name=name)
    answer = as_ann.get(f"/api/jobs/{job.pk}/outputs/{quote(name, safe='')}/")
    assert answer.status_code == 200
    assert b"".join(answer.streaming_content)
    assert "Set-Cookie" not in answer.headers
    kept = answer.headers["Content-Disposition"].removeprefix('attachment; filename="').removesuffix('"')
    assert kept.isascii()
    assert not set(kept) & set('"\r\n;\\')


def test_json_answers_are_not_sniffed_either(as_ann, submit):
    submit()
    assert as_ann.get("/api/jobs/").headers["X-Content-Type-Options"] == "nosniff"
