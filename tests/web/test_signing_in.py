"""Sign-in, sign-out, password change and reset."""

import re

import pytest
from django.core import mail
from django.test import Client, override_settings
from django.urls import reverse

from tests.web.test_pages import text, web


def signs_in(client: Client, name: str, password: str, **more):
    return client.post(web("sign-in"), {"username": name, "password": password, **more})


def test_who_signs_in_comes_to_the_page_that_was_asked_for(client, ann):
    wanted = client.get(web("tokens"))["Location"]
    answer = client.post(wanted, {"username": "ann", "password": "ann-password", "next": web("tokens")})
    assert answer["Location"] == web("tokens") and client.get(web("tokens")).status_code == 200
    assert client.get(web("sign-in"))["Location"] == web("jobs")


def test_who_signs_in_at_the_admins_door_comes_to_the_first_screen(client, op):
    answer = client.post(reverse("admin:login"), {"username": "op", "password": "op-password"})
    assert answer["Location"] == reverse("admin:index")


@pytest.mark.parametrize(("name", "password"), [("ann", "wrong"), ("nobody", "ann-password"), ("ann", "")])
def test_a_wrong_password_and_an_unknown_name_are_told_alike(client, ann, name, password):
    answer = signs_in(client, name, password)
    assert answer.status_code == 200 and client.get(web("jobs")).status_code == 302
    if password:
        assert "enter a correct username and password" in text(answer)


def test_who_is_deactivated_is_signed_out(ann_web, ann):
    ann.is_active = False
    ann.save()
    assert ann_web.get(web("jobs")).status_code == 302


def test_signing_out_is_a_post(ann_web):
    assert ann_web.get(web("sign-out")).status_code == 405
    assert ann_web.post(web("sign-out"))["Location"] == web("sign-in")
    assert ann_web.get(web("jobs")).status_code == 302


def test_a_new_password_ends_all_other_sessions(ann, ann_web):
    other = Client()
    other.force_login(ann)
    typed = {"old_password": "ann-password", "new_password1": "q7-Harbour-dawn", "new_password2": "q7-Harbour-dawn"}
    assert "was entered incorrectly" in text(ann_web.post(web("password-change"), typed | {"old_password": "x"}))
    assert ann_web.post(web("password-change"), typed, follow=True).redirect_chain == [(web("password-changed"), 302)]
    assert ann_web.get(web("jobs")).status_code == 200 and other.get(web("jobs")).status_code == 302


@pytest.mark.parametrize("name", ["reset", "reset-sent"])
def test_without_mail_there_is_no_reset(client, db, name):
    assert client.get(web(name)).status_code == 404
    assert web("reset") not in text(client.get(web("sign-in")))


@override_settings(MAIL=True)
def test_a_reset_link_works_once_and_the_answer_tells_nobody_who_is_there(client, ann):
    ann.email = "ann@example.com"
    ann.save()
    answers = [client.post(web("reset"), {"email": email}) for email in ("ann@example.com", "nobody@example.com")]
    assert {(answer.status_code, answer["Location"]) for answer in answers} == {(302, web("reset-sent"))}
    (sent,) = mail.outbox
    assert sent.to == ["ann@example.com"] and sent.subject == "A new password for Jobsite"
    link = re.search(r"http://[^/]+(/password-reset/\S+)", sent.body)[1]
    form = client.get(link, follow=True)
    typed = {"new_password1": "q7-Harbour-dawn", "new_password2": "q7-Harbour-dawn"}
    assert client.post(form.redirect_chain[-1][0], typed)["Location"] == web("reset-done")
    assert signs_in(client, "ann", "q7-Harbour-dawn").status_code == 302
    assert "does not work any more" in text(Client().get(link, follow=True))
