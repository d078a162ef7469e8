"""S29: the Host header, X-Forwarded-* and `next` are the asker's words: no answer, link or mail is built from them."""

import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.core import mail
from django.test import Client, override_settings
from django.urls import reverse

EVIL = "evil.example.net"
FORWARDED = {
    "HTTP_X_FORWARDED_HOST": EVIL,
    "HTTP_X_FORWARDED_SERVER": EVIL,
    "HTTP_X_FORWARDED_PROTO": "https",
    "HTTP_X_FORWARDED_FOR": "10.0.0.1",
    "HTTP_FORWARDED": f"host={EVIL};proto=https",
    "HTTP_X_HOST": EVIL,
    "HTTP_X_ORIGINAL_URL": "/admin/",
    "HTTP_X_REWRITE_URL": "/admin/",
}
PATHS = ["/", "/sign-in/", "/my/jobs/", "/admin/login/", "/api/jobs/", "/api/docs/", "/jobs"]


@pytest.mark.parametrize("path", PATHS)
def test_another_host_is_a_400(client, db, path):
    answer = client.get(path, HTTP_HOST=EVIL)
    assert answer.status_code == 400 and EVIL not in answer.content.decode()


def test_without_the_list_of_hosts_the_header_would_be_believed(client, db):
    """The probe without the defence."""
    with override_settings(ALLOWED_HOSTS=["*"]):
        assert client.get("/sign-in/", HTTP_HOST=EVIL).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_forwarded_headers_change_no_answer(client, db, path):
    answer = client.get(path, **FORWARDED)
    assert EVIL not in answer.content.decode() + str(answer.headers)
    assert answer.status_code == client.get(path).status_code


@override_settings(MAIL=True)
@pytest.mark.parametrize("headers", [{"HTTP_HOST": "localhost:1"}, FORWARDED, {"HTTP_HOST": f"127.0.0.1:80@{EVIL}"}])
def test_the_mail_with_a_new_password_names_only_ourselves(client, ann, headers):
    ann.email = "ann@example.com"
    ann.save()
    client.post(reverse("web:reset"), {"email": ann.email}, **headers)
    links = [word for sent in mail.outbox for word in sent.body.split() if word.startswith("http")]
    assert len(links) == ("@" not in headers.get("HTTP_HOST", ""))
    assert all(link.startswith(f"{settings.SITE_URL}/password-reset/") for link in links)


@pytest.mark.parametrize(
    "target",
    [f"https://{EVIL}/", f"//{EVIL}/", f"/\\{EVIL}", f"https:{EVIL}", "javascript:alert(1)", f"http://a@{EVIL}"],
)
def test_after_signing_in_nobody_is_led_away(ann, target):
    for address in ("/sign-in/", "/admin/login/"):
        client = Client()
        form = {"username": "ann", "password": "ann-password", "next": target}
        answer = client.post(f"{address}?next={target}", form)
        assert EVIL not in answer.get("Location", "") and "alert" not in answer.get("Location", "")


@pytest.mark.once
def test_in_production_only_the_sites_own_host_is_answered(tmp_path):
    """Every list of hosts is derived: there is no setting by which `*` could come in."""
    show = (
        "from django.conf import settings as s; print(s.ALLOWED_HOSTS, s.USE_X_FORWARDED_HOST, s.CSRF_TRUSTED_ORIGINS)"
    )
    more = {"SITE_URL": "https://jobs.example.com", "ALLOWED_HOSTS": "*", "JOBSITE_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", show], cwd=settings.BASE_DIR, env=os.environ | more, capture_output=True, text=True
    )
    assert done.stdout.strip() == "['jobs.example.com'] False ['https://jobs.example.com']"
