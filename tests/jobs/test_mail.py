"""Mail to users, with a real SMTP server that also fails: at least once, none twice, and nobody waits for it."""

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now

from jobs import lifecycle, mail, tasks, upkeep
from jobs.errors import ErrorCode, JobError
from jobs.models import About, Job, JobEvent, Letter, Preference, Tick, Watermark
from tests.jobs.conftest import running, submit  # noqa: F401 - fixtures
from tests.mail_server import MailServer
from tests.waiting import until
from tokens import ledger

pytestmark = pytest.mark.django_db


@pytest.fixture
def server(settings):
    with MailServer() as running_server:
        settings.MAIL = True
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", running_server.port, 30
        yield running_server


@pytest.fixture(autouse=True)
def _addresses(ann, bob, settings):
    for person in (ann, bob):
        person.email = f"{person.username}@example.com"
        person.save()
    settings.MAIL = True
    mail.owe()  # the watermark begins here


def end(lease, code: ErrorCode | None = None, *, minutes: float = 10.0) -> Job:
    """The job ends now; it was submitted so long ago."""
    JobEvent.objects.filter(job=lease.job_id).update(at=Now() - timedelta(minutes=minutes))
    if code:
        lifecycle.fail(lease, JobError(code, "<b>no\r\nBcc: eve@example.com"))
    else:
        lifecycle.succeed(lease, [])
    return Job.objects.get(pk=lease.job_id)


def overdue() -> None:
    """The next try is due."""
    Letter.objects.filter(next_at__isnull=False).update(next_at=Now() - timedelta(seconds=1))


def texts(letters=None) -> list[str]:
    return [f"{letter.subject}\n{letter.body}" for letter in letters or Letter.objects.order_by("source")]


# --- what is told ---------------------------------------------------------------------------------------------------


def test_a_job_that_finished_and_one_that_failed_are_told_with_what_the_ledger_says(running, ann):  # noqa: F811
    done, failed = end(running()), end(running(price=8), ErrorCode.ffmpeg_error)
    free = end(running(price=0), ErrorCode.bad_input)
    assert mail.owe() == 3
    finished, refunded, unpaid = texts()
    assert "Your KITCHEN job finished" in finished and "10 tokens charged." in finished
    assert f"/my/jobs/{done.pk}/" in finished and "It took 10 min." in finished
    assert "job failed" in refunded and "8 tokens back; it cost nothing." in refunded
    assert ErrorCode.ffmpeg_error.row.advice in refunded and f"/my/jobs/{failed.pk}/" in refunded
    assert "It was not charged." in unpaid and str(free.pk) in unpaid
    assert not any("Bcc" in text or "prompt" in text for text in (finished, refunded, unpaid))
    assert mail.owe() == 0  # though the same events are read again


def test_a_job_that_the_operator_failed_is_told_with_the_reason(running, ann):  # noqa: F811
    job = running()
    JobEvent.objects.filter(job=job.job_id).update(at=Now() - timedelta(minutes=10))
    lifecycle.fail_by_hand(job.job_id, reason="The disk of gpu-1 broke.", by="user:9")
    assert mail.owe() == 1
    assert "The operator ended the job. Their reason: The disk of gpu-1 broke.\n" in texts()[0]


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({}, {About.FINISHED, About.FAILED}),
        ({"mail_finished": False}, {About.FAILED}),
        ({"mail_failed": False}, {About.FINISHED}),
        ({"mail_after": 11}, set()),
        ({"mail_after": 0}, {About.FINISHED, About.FAILED}),
    ],
)
def test_each_user_chooses_what_to_be_told(running, ann, choices, told):  # noqa: F811
    if choices:
        Preference.objects.create(owner=ann, **choices)
    end(running())
    end(running(), ErrorCode.ffmpeg_error)
    mail.owe()
    assert set(Letter.objects.values_list("about", flat=True)) == told


def test_short_jobs_cancelled_ones_and_retries_are_told_to_nobody(running, submit, ann):  # noqa: F811
    end(running(), minutes=4)
    end(running(), ErrorCode.worker_timeout)  # is tried again
    lifecycle.cancel(submit().pk, by="user:1")
    assert mail.owe() == 0


def test_who_cannot_be_reached_gets_no_letter(running, ann):  # noqa: F811
    for fields in ({"email": ""}, {"email": "ann@example.com", "is_active": False}):
        type(ann).objects.filter(pk=ann.pk).update(**fields)
        end(running())
        assert mail.owe() == 0


def test_a_low_balance_is_told_once_each_time_that_it_becomes_low(ann):
    account = ann.account.pk
    ledger.charge(account, 985, reference="a")  # 15 left
    assert mail.owe() == 0
    ledger.charge(account, 8, reference="b")  # 7
    ledger.charge(account, 1, reference="c")  # 6: known
    assert mail.owe() == 1 and mail.owe() == 0
    assert "Your balance is 7 tokens, below the 10 tokens" in texts()[0] and "8 tokens were" in texts()[0]
    ledger.grant(account, 100, reason="again")
    ledger.charge(account, 99, reference="d")  # 7
    assert mail.owe() == 1
    ledger.grant(account, 100, reason="again")
    ledger.charge(account, 99, reference="e")
    ledger.grant(account, 100, reason="already well")
    assert mail.owe() == 0


@pytest.mark.parametrize(("limit", "letters"), [(0, 0), (500, 1), (100, 0)])
def test_each_user_chooses_what_is_low(ann, limit, letters):
    Preference.objects.create(owner=ann, low_balance=limit)
    ledger.charge(ann.account.pk, 700, reference="a")
    assert mail.owe() == letters


def test_without_mail_nothing_is_owed_later_either(running, settings):  # noqa: F811
    settings.MAIL = False
    assert mail.owe() == 0 and not Watermark.objects.exists()
    end(running())
    settings.MAIL = True
    assert mail.owe() == 0  # it begins with what comes
    end(running())
    assert mail.owe() == 1


def test_the_watermark_moves_past_what_is_old_and_no_further(running):  # noqa: F811
    end(running())
    mail.owe()
    mark = Watermark.objects.get(name="mail.jobs")
    JobEvent.objects.update(at=Now() - timedelta(seconds=90))
    mail.owe()
    assert Watermark.objects.get(name="mail.jobs").last == JobEvent.objects.latest("id").pk > mark.last
    assert Letter.objects.count() == 1


# --- how it is sent -------------------------------------------------------------------------------------------------


def test_letters_go_over_one_connection_and_leave_no_text_behind(server, running):  # noqa: F811
    end(running())
    end(running(), ErrorCode.ffmpeg_error)
    mail.owe()
    assert mail.deliver() == 2 and mail.deliver() == 0
    assert server.connections == 1
    first = server.received[0]
    assert first["To"] == "ann@example.com" and first["Subject"] == "[Jobsite] Your KITCHEN job finished"
    assert first["Message-ID"] == f"<{Letter.objects.earliest('source').pk}@127.0.0.1>"
    assert first["Auto-Submitted"] == "auto-generated" and first["Bcc"] is None
    assert "10 tokens charged." in first.get_content()
    assert set(Letter.objects.values_list("body", "next_at")) == {("", None)}


def test_a_server_that_is_away_busy_or_silent_gets_it_later(server, running, settings):  # noqa: F811
    end(running())
    mail.owe()
    for tries, fails in enumerate(("busy", "silent", "away"), start=1):
        server.fails, settings.EMAIL_PORT = fails, 1 if fails == "away" else server.port
        settings.EMAIL_TIMEOUT = 0.5 if fails == "silent" else 30
        assert mail.deliver() == 0 and not server.received
        letter = Letter.objects.get()
        assert letter.tries == tries and letter.error and letter.next_at is not None
        assert mail.deliver() == 0 and Letter.objects.get().tries == tries  # not yet due
        overdue()
    server.fails, settings.EMAIL_PORT = "", server.port
    assert mail.deliver() == 1 and len(server.received) == 1


def test_in_doubt_it_is_sent_again_under_the_same_id(server, running):  # noqa: F811
    end(running())
    mail.owe()
    server.fails = "dropped"
    assert mail.deliver() == 0 and len(server.received) == 1
    server.fails = ""
    overdue()
    assert mail.deliver() == 1
    assert len({message["Message-ID"] for message in server.received}) == 1 and len(server.received) == 2


def test_an_address_that_is_refused_is_given_up_and_holds_up_nobody(server, running, submit, bob):  # noqa: F811
    end(running())
    submit(owner=bob)
    end(lifecycle.claim("cpu"))
    mail.owe()
    server.refuses = {"ann@example.com"}
    assert mail.deliver() == 1
    assert [message["To"] for message in server.received] == ["bob@example.com"]
    refused = Letter.objects.get(owner__username="ann")
    assert (refused.next_at, refused.sent_at) == (None, None) and "Recipients" in refused.error


def test_an_address_that_no_mail_can_have_is_given_up_and_holds_up_nobody(server, running, submit, ann, bob):  # noqa: F811
    type(ann).objects.filter(pk=ann.pk).update(email="ann@\u200d.org")  # Django's forms take it
    end(running())
    submit(owner=bob)
    end(lifecycle.claim("cpu"))
    mail.owe()
    assert mail.deliver() == 1
    assert [message["To"] for message in server.received] == ["bob@example.com"]
    given_up = Letter.objects.get(owner=ann)
    assert (given_up.next_at, given_up.sent_at, given_up.error) == (None, None, "UnicodeError")


def test_it_is_given_up_after_the_last_pause(server, running):  # noqa: F811
    end(running())
    mail.owe()
    server.fails = "busy"
    for _ in range(len(mail.PAUSES) + 3):
        mail.deliver()
        overdue()
    assert Letter.objects.get().tries == len(mail.PAUSES) + 1


def test_a_try_whose_process_died_is_made_again_after_its_lease(server, running):  # noqa: F811
    end(running())
    mail.owe()
    assert mail._take() is not None  # taken, and then nothing more was heard
    assert mail.deliver() == 0
    Letter.objects.update(next_at=F("next_at") - mail.LEASE)
    overdue()
    assert mail.deliver() == 1


def test_old_letters_go(running):  # noqa: F811
    end(running())
    mail.owe()
    assert mail.sweep() == 0
    Letter.objects.update(created_at=Now() - mail.KEEP - timedelta(hours=1))
    assert mail.sweep() == 1


@pytest.mark.django_db(transaction=True)
def test_the_tick_does_not_wait_for_a_silent_server(server, running):  # noqa: F811
    server.fails = "silent"
    end(running())
    assert upkeep.schedule()["send_mail"][0] == tasks.send_mail.name
    mail.start()  # the first thread finds nothing: it is the tick that writes the letter
    until(lambda: not mail._errand.thread.is_alive())
    Tick.objects.filter(name="send_mail").update(ran_at=None)
    assert tasks.send_mail() == 1
    assert mail._errand.thread.is_alive() and mail._errand.thread is not threading.current_thread()
    server.over.set()  # it hangs up
    until(lambda: Letter.objects.filter(tries=1).exists())
    assert not server.received
    until(lambda: not mail._errand.thread.is_alive())
    connection.close()
