"""Webhooks: each ended job is told once, signed, again after a failure, and by nobody's leave but the receiver's."""

import json
import threading
from datetime import datetime, timedelta

import pytest
from django.core import mail
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from standardwebhooks import Webhook, WebhookVerificationError

from jobs import lifecycle, outbox, tasks, webhook_sender, webhooks
from jobs.api import objects
from jobs.engines import outbound
from jobs.errors import ErrorCode, JobError, Refused
from jobs.models import Delivery, Endpoint, Job, JobEvent, Muted
from tests.receiver import receiver, status
from tests.waiting import until

pytestmark = pytest.mark.django_db


def owe() -> int:
    return webhooks.owe(lambda jobs: objects.many(None, jobs))


@pytest.fixture(autouse=True)
def here(settings):
    """Webhooks may lead to this host."""
    settings.JOBSITE = {**settings.JOBSITE, "WEBHOOK_NETWORKS": outbound.LOOPBACK}
    settings.MAIL = True


@pytest.fixture
def got():
    with receiver() as server:
        yield server


@pytest.fixture
def hook(ann, got):
    """Ann's endpoint at the receiver; `hook.secret` is what she was shown."""
    endpoint, secret = webhooks.create(ann.pk, url=got.url)
    endpoint.secret = secret
    return endpoint


def due_again() -> None:
    Delivery.objects.filter(next_at__isnull=False).update(next_at=Now())
    Endpoint.objects.update(rest_until=None)


def test_an_ended_job_is_told_once_and_signed(hook, got, succeeded):
    job = succeeded()
    assert (owe(), webhook_sender.deliver()) == (1, 1)
    (message,) = got.verified(hook.secret)
    assert (message["type"], message["data"]["id"], message["data"]["status"]) == (
        "job.succeeded",
        str(job.pk),
        "SUCCEEDED",
    )
    assert message["data"]["outputs"][0]["url"].startswith("http://127.0.0.1:8000/api/jobs/")
    assert message["data"]["urls"]["self"] == f"http://127.0.0.1:8000/api/jobs/{job.pk}/"
    assert (owe(), webhook_sender.deliver(), len(got.got)) == (0, 0, 1)
    delivery = Delivery.objects.get()
    assert delivery.state == "delivered" and delivery.log[0]["status"] == 204
    with pytest.raises(WebhookVerificationError):
        Webhook(webhooks.secret_of("another")).verify(got.got[0][1], got.got[0][0])


def test_the_message_is_the_job_as_the_api_shows_it(hook, got, succeeded, as_ann):
    job = succeeded()
    owe(), webhook_sender.deliver()
    shown = as_ann.get(f"/api/jobs/{job.pk}/", headers={"Host": "127.0.0.1:8000"}).json()
    sent = json.loads(got.got[0][1])["data"]
    assert sent == {name: shown[name] for name in sent} and shown.keys() - sent.keys() == {"attempts"}


def test_failed_and_cancelled_jobs_are_told_and_bobs_are_not(hook, got, running, submit, bob):
    lifecycle.fail(running(max_attempts=1), JobError(ErrorCode.bad_input, "the salt is missing"))
    lifecycle.cancel(submit().pk, by="test")
    lifecycle.cancel(submit(owner=bob).pk, by="test")
    lifecycle.fail(running(), JobError(ErrorCode.worker_lost))  # in RETRY: it has not ended
    assert owe() == 2
    webhook_sender.deliver()
    told = {message["type"]: message["data"] for message in got.verified(hook.secret)}
    assert told.keys() == {"job.failed", "job.canceled"}
    assert told["job.failed"]["error"]["message"] == "the salt is missing" and told["job.failed"]["error"]["refunded"]


def test_a_job_that_is_on_its_next_round_is_told_as_it_ended(hook, got, running):
    lease = running(max_attempts=1)
    lifecycle.fail(lease, JobError(ErrorCode.bad_input))
    lifecycle.retry(lease.job_id, by="test")
    lifecycle.cancel(lease.job_id, by="test")
    owe(), webhook_sender.deliver()
    first, second = sorted(got.verified(hook.secret), key=lambda message: datetime.fromisoformat(message["timestamp"]))
    assert (first["type"], first["data"]["status"]) == ("job.failed", "FAILED")
    assert first["data"]["error"]["code"] == "bad_input" and first["data"]["cost"] == {
        "estimate": 10,
        "charged": 10,
        "refunded": 10,
    }
    assert (second["type"], second["data"]["cost"]["charged"]) == ("job.canceled", 20)


def test_only_the_types_that_were_asked_for(ann, got, running, submit):
    webhooks.create(ann.pk, url=got.url, types=["job.failed"])
    lifecycle.cancel(submit().pk, by="test")
    lifecycle.fail(running(max_attempts=1), JobError(ErrorCode.bad_input))
    assert owe() == 1 and Delivery.objects.get().type == "job.failed"


def test_what_ended_before_the_endpoint_was_made_is_not_told(ann, got, submit):
    lifecycle.cancel(submit().pk, by="test")
    webhooks.create(ann.pk, url=got.url)
    assert owe() == 0


def test_an_event_that_becomes_visible_late_is_not_lost(hook, got, submit):
    """On PostgreSQL a lower id may be committed after a higher one. Seen to fail with a cursor that goes to the
    highest id at once."""
    first, second = submit(), submit()
    lifecycle.cancel(first.pk, by="test")
    lifecycle.cancel(second.pk, by="test")
    late = JobEvent.objects.filter(job=first).latest("id")
    values = {field.attname: getattr(late, field.attname) for field in JobEvent._meta.concrete_fields}
    late.delete()
    assert owe() == 1
    JobEvent.objects.create(**values)
    assert owe() == 1
    assert Delivery.objects.count() == 2


def test_the_cursor_moves_on_behind_the_overlap(hook, submit):
    lifecycle.cancel(submit().pk, by="test")
    owe()
    assert Endpoint.objects.get().cursor == hook.cursor
    JobEvent.objects.update(at=Now() - outbox.OVERLAP - timedelta(seconds=1))
    owe()
    assert Endpoint.objects.get().cursor == JobEvent.objects.latest("id").pk
    assert Delivery.objects.count() == 1


@pytest.mark.parametrize("where", ["bulk_create", "update"])
def test_nothing_is_lost_or_doubled_wherever_the_tick_dies(hook, submit, monkeypatch, where):
    lifecycle.cancel(submit().pk, by="test")
    JobEvent.objects.update(at=Now() - outbox.OVERLAP - timedelta(seconds=1))
    queryset = type(Delivery.objects.all())
    plain = getattr(queryset, where)

    def die(self, *args, **options):
        if self.model in (Delivery, Endpoint):
            raise KeyboardInterrupt
        return plain(self, *args, **options)

    with monkeypatch.context() as dying:
        dying.setattr(queryset, where, die)
        with pytest.raises(KeyboardInterrupt):
            owe()
    owe()
    assert Delivery.objects.count() == 1


def test_a_message_outlives_its_job(hook, got, succeeded):
    job = succeeded()
    owe()
    lifecycle.delete(job.pk, by="test")
    webhook_sender.deliver()
    assert got.verified(hook.secret)[0]["data"]["id"] == str(job.pk)


def test_a_body_is_kept_under_20_kb(hook, got, submit):
    job = submit()
    Job.objects.filter(pk=job.pk).update(params={"text": "x" * 30_000}, metadata={"mine": "é" * 900})
    lifecycle.cancel(job.pk, by="test")
    owe(), webhook_sender.deliver()
    message = json.loads(got.got[0][1])
    assert len(got.got[0][1]) <= 20_000 and message["cut"] == ["params"] and message["data"]["params"] == {}
    assert message["data"]["metadata"] == {"mine": "é" * 900}


def test_settling_a_job_knows_nothing_of_webhooks(hook, running):
    lease = running()
    with CaptureQueriesContext(connection) as statements:
        lifecycle.succeed(lease, [])
    assert statements.captured_queries
    assert not any(word in str(statements.captured_queries) for word in ("jobs_endpoint", "jobs_delivery"))


# --- tries ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def owed(hook, submit):
    """A message that is due."""
    lifecycle.cancel(submit().pk, by="test")
    owe()
    return Delivery.objects.get()


def test_a_retry_has_the_same_id_and_a_new_time(hook, got, owed):
    got.says = status(500, b"out of \x1b[31morder\n<b>")
    webhook_sender.deliver()
    got.says = status(200)
    due_again()
    webhook_sender.deliver()
    assert got.ids == [f"msg_{owed.pk.hex}"] * 2
    assert [body for _, body in got.got] == [owed.body] * 2
    got.verified(hook.secret)
    owed.refresh_from_db()
    assert [(line["status"], line["error"]) for line in owed.log] == [(500, "Answered 500."), (200, "")]
    assert owed.log[0]["excerpt"] == "out of [31morder <b>" and 0 <= owed.log[0]["seconds"] < 15
    assert Endpoint.objects.get().failures == 0


def test_eight_tries_over_three_days_and_then_no_more(hook, got, owed):
    got.says = status(500)
    pauses = []
    for _ in range(webhook_sender.TRIES):
        due_again()
        webhook_sender.deliver()
        owed.refresh_from_db()
        pauses.append(owed.next_at and (owed.next_at - timezone.now()).total_seconds())
    assert len(got.got) == 8 and pauses[-1] is None and owed.state == "failed"
    for pause, planned in zip(pauses, webhook_sender.PAUSES, strict=False):
        assert planned - 5 <= pause <= planned * 1.1 + 1
    assert 2.9 * 86_400 < sum(webhook_sender.PAUSES) * 1.05 < 3.2 * 86_400


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (status(302, Location="/elsewhere"), "Answered 302: redirects are not followed."),
        (status(400), "Answered 400."),
        (status(199), "The host did not answer as it should."),
    ],
)
def test_only_2xx_is_taken(got, owed, says, words):
    got.says = says
    webhook_sender.deliver()
    owed.refresh_from_db()
    assert owed.log[-1]["error"] == words and owed.state == "owed" and len(got.got) == 1


def test_an_address_where_nobody_listens(ann, submit):
    with receiver() as gone:
        url = gone.url
    webhooks.create(ann.pk, url=url)
    lifecycle.cancel(submit().pk, by="test")
    owe(), webhook_sender.deliver()
    assert Delivery.objects.get().log[0]["error"] == "The host cannot be reached."


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("120", 115, 121),
        ("1", 5, 12),  # sooner than our own pause: that holds
        ("999999999", 86_000, 86_401),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 86_000, 86_401),
        ("soon", 5, 12),
        ("-5", 5, 12),
        ("Wed, 21 Oct 99999999999 07:28:00 GMT", 5, 12),  # ended the sender
    ],
)
def test_retry_after_is_obeyed_within_bounds_by_all_of_the_endpoints_messages(got, owed, value, least, most, hook):
    got.says = status(429, Retry_After=value)
    webhook_sender.deliver()
    owed.refresh_from_db()
    assert least <= (owed.next_at - timezone.now()).total_seconds() <= most
    webhooks.send_test(hook)
    assert webhook_sender.deliver() == (least == 5 and value != "1")  # the pause is the endpoint's


def test_a_bug_of_ours_costs_one_try_and_no_other(bob, hook, got, owed, monkeypatch, caplog):
    plain, theirs = outbound.post, f"{got.url}&of=bob"

    async def post(url, *arguments, **options):
        if url == hook.url:
            raise RuntimeError("unforeseen")
        return await plain(url, *arguments, **options)

    monkeypatch.setattr(outbound, "post", post)
    webhooks.send_test(webhooks.create(bob.pk, url=theirs)[0])
    assert webhook_sender.deliver() == 2
    owed.refresh_from_db()
    assert (owed.state, owed.log[0]["error"], len(got.got)) == ("owed", "The try broke off.", 1)
    assert f"Webhook {owed.pk}: unexpected RuntimeError" in caplog.messages


def test_410_mutes_at_once_and_the_owner_is_told(ann, hook, got, owed, submit):
    type(ann).objects.filter(pk=ann.pk).update(email="ann@example.com")
    got.says = status(410)
    webhook_sender.deliver()
    endpoint = Endpoint.objects.get()
    owed.refresh_from_db()
    assert (endpoint.muted, owed.state) == ("gone", "failed")
    assert webhook_sender.tell_owners() == 1 and webhook_sender.tell_owners() == 0
    assert "127.0.0.1" in mail.outbox[0].subject and "t0ken" not in mail.outbox[0].body + mail.outbox[0].subject
    lifecycle.cancel(submit().pk, by="test")  # is kept for a replay, and not sent
    assert owe() == 1 and webhook_sender.deliver() == 0
    with pytest.raises(Refused):
        webhooks.replay(owed)
    got.says = status(200)
    assert webhooks.enable(endpoint)
    assert webhook_sender.deliver() == 0
    assert webhooks.replay_failed(Endpoint.objects.get(), timezone.now() - timedelta(hours=1)) == 2
    assert webhook_sender.deliver() == 2


def test_what_is_under_way_when_it_is_muted_is_held_too(hook, got):
    """Else it is due for thirty days, and nobody may send it."""
    got.says = status(410)
    for _ in range(webhook_sender.PER_ENDPOINT):
        webhooks.send_test(hook)
    assert webhook_sender.deliver() == len(got.got) == webhook_sender.PER_ENDPOINT
    assert {delivery.state for delivery in Delivery.objects.all()} == {"failed"}


@pytest.mark.django_db(transaction=True)
def test_the_owner_is_told_while_other_messages_are_still_under_way(ann, hook, got):
    type(ann).objects.filter(pk=ann.pk).update(email="ann@example.com")
    gone, _ = webhooks.create(ann.pk, url=got.url)
    webhooks.mute(gone.pk, Muted.GONE)
    got.says = got.hang
    webhooks.send_test(hook)
    tasks.deliver_webhooks()
    try:
        until(lambda: got.got and mail.outbox, seconds=10)
        assert Delivery.objects.get().state == "owed"
    finally:
        got.closing.set()
        until(lambda: not [one for one in threading.enumerate() if "webhooks" in one.name], seconds=20)


def test_muted_after_a_day_of_nothing_but_failures(got, hook, owed):
    got.says = status(500)
    for number in range(webhook_sender.MUTE_FAILURES):
        assert Endpoint.objects.get().muted == ""
        if number == webhook_sender.MUTE_FAILURES - 1:
            Endpoint.objects.update(failing_since=F("failing_since") - webhook_sender.MUTE_AFTER)
        due_again()
        webhook_sender.deliver()
    assert Endpoint.objects.get().muted == "failing"


def test_switched_off_it_misses_for_good(hook, got, owed, submit):
    webhooks.change(hook, enabled=False)
    assert webhook_sender.deliver() == 0
    lifecycle.cancel(submit().pk, by="test")
    assert owe() == 0
    webhooks.change(Endpoint.objects.get(), enabled=True)
    lifecycle.cancel(submit().pk, by="test")
    assert owe() == 1 and webhook_sender.tell_owners() == 0


def test_a_try_is_made_by_one_sender_and_again_if_it_died(hook, got, owed):
    (taken,) = webhook_sender._take([])
    assert webhook_sender._take([]) == []
    Delivery.objects.update(next_at=Now() - timedelta(seconds=1))  # its lease is over
    assert webhook_sender.deliver() == 1
    webhook_sender._settle(taken, webhook_sender.Came(500, "late", "", 1.0))  # the dead one comes back
    owed.refresh_from_db()
    assert owed.state == "delivered" and len(owed.log) == 1


def test_no_endpoint_and_no_owner_gets_more_than_a_share(ann, bob, got):
    for owner in (ann, ann, ann, bob):
        endpoint, _ = webhooks.create(owner.pk, url=got.url)
        for _ in range(6):
            webhooks.send_test(endpoint)
    taken = webhook_sender._take([])
    owners = [sending.endpoint.owner_id for sending in taken]
    assert (owners.count(ann.pk), owners.count(bob.pk)) == (8, 4)
    assert webhook_sender._take(taken) == []
    Endpoint.objects.update(failures=1)
    Delivery.objects.update(next_at=Now())
    assert len(webhook_sender._take([])) == 4  # one each


def test_what_is_due_is_what_could_be_sent(ann, hook, owed):
    """The metrics' lag: it must not grow while nobody may send."""
    assert webhooks.due().get() == owed
    Endpoint.objects.update(rest_until=Now() + timedelta(minutes=1))
    assert not webhooks.due().exists()
    Endpoint.objects.update(rest_until=None)
    webhooks.mute(hook.pk, Muted.OFF)
    Delivery.objects.update(next_at=Now())  # asked for by who had read just before that it is not muted
    assert not webhooks.due().exists()
    webhooks.enable(Endpoint.objects.get())
    type(ann).objects.update(is_active=False)
    assert not webhooks.due().exists()


def test_an_owner_who_was_deactivated_gets_nothing(ann, hook, owed, submit):
    type(ann).objects.update(is_active=False)
    lifecycle.cancel(submit().pk, by="test")
    assert owe() == 0 and webhook_sender.deliver() == 0


# --- secrets --------------------------------------------------------------------------------------------------------


def test_after_a_rotation_both_secrets_verify_for_a_day(hook, got):
    new = webhooks.rotate(Endpoint.objects.get())
    webhooks.send_test(hook)
    webhook_sender.deliver()
    assert got.verified(hook.secret) == got.verified(new) and new != hook.secret
    Endpoint.objects.update(old_until=Now() - timedelta(seconds=1))
    got.got.clear()
    webhooks.send_test(hook)
    webhook_sender.deliver()
    got.verified(new)
    with pytest.raises(WebhookVerificationError):
        got.verified(hook.secret)


def test_of_two_rotations_at_once_both_secrets_verify(hook, got):
    seen = Endpoint.objects.get()  # by both
    first, second = webhooks.rotate(seen), webhooks.rotate(seen)
    webhooks.send_test(hook)
    webhook_sender.deliver()
    assert got.verified(first) == got.verified(second) and first != second


def test_the_secret_is_in_no_row_and_no_repr(hook):
    """The columns are read back as text; the hint's four characters are all of it that is kept."""
    kept = repr(Endpoint.objects.values().get()) + repr(hook) + str(hook)
    key = hook.secret.removeprefix("whsec_")
    assert not any(key[start : start + 6] in kept for start in range(len(key) - 6))
    assert "t0ken" not in repr(hook)


def test_a_changed_key_of_the_platform_is_named_and_nothing_is_sent(hook, got, owed, settings):
    settings.SECRET_KEY = "another" * 10
    webhook_sender.deliver()
    assert got.got == [] and "rotate the secret" in Delivery.objects.get().log[0]["error"]
    webhooks.rotate(Endpoint.objects.get())
    due_again()
    webhook_sender.deliver()
    assert len(got.got) == 1


def test_messages_go_after_thirty_days(owed):
    assert webhooks.sweep() == 0
    Delivery.objects.update(created_at=Now() - timedelta(days=31))
    assert webhooks.sweep() == 1 and not Delivery.objects.exists()


@pytest.mark.parametrize("muted", Muted.values)
def test_why_it_is_muted_is_told_in_words(muted):
    assert len(Muted(muted).label.split()) > 2


def test_what_is_owed_is_found_by_index(db):
    oldest = Delivery.objects.filter(next_at__isnull=False).order_by("next_at").values("next_at")[:1]
    if connection.vendor == "sqlite":
        assert "delivery_owed" in oldest.explain()
