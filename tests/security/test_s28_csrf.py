"""S28: a session alone changes nothing; the page's token must come with it. A key needs none."""

import pytest
from django.conf import settings as configured
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import get_resolver

from jobs.models import Job
from tests.clients import ApiClient
from tests.security.test_s17_other_peoples_things import fill

pytestmark = pytest.mark.django_db
TOKEN = "x" * 32
KITCHEN = {"kind": "KITCHEN", "params": {}}


@pytest.fixture
def browser(ann):
    client = ApiClient(enforce_csrf_checks=True)
    client.force_login(ann)
    return client


def unsafe_routes(ids: dict[str, str]):
    for pattern in get_resolver().url_patterns[1].url_patterns:
        view = getattr(pattern.callback, "cls", None)
        for method in ("post", "put", "patch", "delete"):
            if view and hasattr(view, method) and method in view.http_method_names:
                yield method.upper(), fill(str(pattern.pattern), ids)


def test_every_unsafe_route_refuses_a_session_without_token(browser, submit, upload):
    job = submit()
    ids = {"job_id": str(job.pk), "upload_id": str(upload().pk), "name": "x"}
    walked = list(unsafe_routes(ids))
    assert len(walked) >= 16
    for cookie in (None, TOKEN):  # a cookie that another site cannot read, but the browser sends
        if cookie:
            browser.cookies["csrftoken"] = cookie
        for method, path in walked:
            form = path.strip("/") in ("api/upload", "api/uploads") and method == "POST"
            answer = browser.post(path, {"x": "1"}) if form else browser.send(path, {}, method=method)
            keys_alone = path.startswith("/api/ingest")  # takes no session at all
            refused = (401, "not_authenticated") if keys_alone else (403, "permission_denied")
            assert (answer.status_code, answer.json()["code"]) == refused, (method, path, answer.content)
    assert Job.objects.get().status == "QUEUED"


def test_with_its_token_the_session_works(browser):
    browser.cookies["csrftoken"] = TOKEN
    answer = browser.send("/api/jobs/", KITCHEN, X_CSRFToken=TOKEN)
    assert answer.status_code == 202
    assert browser.send(f"/api/jobs/{answer.json()['id']}/cancel/", X_CSRFToken=TOKEN).status_code == 200


def test_a_foreign_origin_is_refused_even_with_a_token(browser):
    browser.cookies["csrftoken"] = TOKEN
    assert browser.send("/api/jobs/", KITCHEN, X_CSRFToken=TOKEN, Origin="https://evil.example").status_code == 403


def test_a_form_of_another_site_brings_no_file(browser):
    browser.cookies["csrftoken"] = TOKEN
    answer = browser.post("/api/uploads/", {"file": SimpleUploadedFile("a.mp4", b"x"), "csrfmiddlewaretoken": "y" * 32})
    assert answer.status_code == 403


def test_a_key_needs_no_token(as_ann):
    client = ApiClient(enforce_csrf_checks=True, headers={"Authorization": as_ann.defaults["HTTP_AUTHORIZATION"]})
    assert client.send("/api/jobs/", KITCHEN).status_code == 202


def test_a_wrong_key_does_not_fall_back_to_the_session(browser):
    assert browser.get("/api/jobs/", headers={"Authorization": "Bearer js_wrong"}).status_code == 401


def test_cookies_stay_on_their_site():
    assert configured.SESSION_COOKIE_SAMESITE == configured.CSRF_COOKIE_SAMESITE == "Lax"
    assert configured.SESSION_COOKIE_HTTPONLY


def test_no_view_of_ours_is_exempt():
    """DRF's views are exempt from the middleware and ask for the token themselves; nothing else may be."""
    for pattern in get_resolver().url_patterns[1].url_patterns:
        exempt = getattr(pattern.callback, "csrf_exempt", False)
        assert not exempt or hasattr(pattern.callback, "cls"), pattern
