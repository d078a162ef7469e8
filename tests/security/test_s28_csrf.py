"""S28: a session alone changes nothing (every route: test_every_route.py); the page's token must come with it. A key
needs none."""

import pytest
from django.conf import settings as configured
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import get_resolver

from tests.clients import ApiClient

pytestmark = pytest.mark.django_db
TOKEN = "x" * 32
KITCHEN = {"kind": "KITCHEN", "params": {}}


@pytest.fixture
def browser(ann):
    client = ApiClient(enforce_csrf_checks=True)
    client.force_login(ann)
    return client


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
