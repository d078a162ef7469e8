"""The Content-Security-Policy of every face (what it holds back is seen in a browser: tests/browser/)."""

import pytest

from jobsite import storage

OWN = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
    "img-src 'self'",
    "media-src 'self'",
    "font-src 'self'",
}


def directives(answer) -> set[str]:
    return set(answer["Content-Security-Policy"].split("; "))


@pytest.mark.parametrize("path", ["/sign-in/", "/my/jobs/", "/nowhere/", "/api/jobs/", "/api/docs/errors/", "/jobs"])
def test_our_own_answers_allow_nothing_inline_and_nothing_from_elsewhere(client, db, path):
    assert directives(client.get(path)) == OWN


@pytest.mark.parametrize(
    ("path", "scripts"), [("/admin/login/", "script-src 'self' 'unsafe-eval'"), ("/api/docs/", "script-src 'self'")]
)
def test_others_pages_may_have_inline_styles_and_never_inline_scripts(client, db, path, scripts):
    found = directives(client.get(path))
    assert {scripts, "style-src 'self' 'unsafe-inline'", "default-src 'none'"} <= found


def test_downloads_keep_their_own(ann_web, succeeded):
    job = succeeded(b"<script>", "dish.html", "text/html")
    answer = ann_web.get(f"/api/jobs/{job.pk}/outputs/dish.html")
    answer.close()
    assert answer["Content-Security-Policy"] == "sandbox; default-src 'none'"


def test_pictures_of_a_bucket_come_from_its_host():
    bucket = {"BACKEND": "jobs.s3.S3", "OPTIONS": {"public_endpoint": "https://s3.example.com", "endpoint_url": None}}
    assert storage.outputs_from(bucket) == ["https://s3.example.com"]
