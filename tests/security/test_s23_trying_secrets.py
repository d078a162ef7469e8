"""S23: whoever tries passwords, keys and secrets is told to wait, by address and by account, for all web processes.

The clocks here are slow, so that no test depends on how long it takes. Without `count()` in the door that a test tries,
all of its tries are answered and it fails.
"""

import pytest
from django.core import mail
from django.db.models import F
from django.urls import reverse

from jobs import throttles
from jobs.errors import Refused
from jobs.models import Throttle
from jobs.throttles import Attempt, Clock
from tests.clients import ApiClient

pytestmark = pytest.mark.django_db
HERE, THERE = "192.0.2.1", "192.0.2.2"
SHORT, LONG, ACCOUNT = Clock(6, 6000), Clock(15, 150_000), Clock(3, 3000)  # tries, seconds


@pytest.fixture(autouse=True)
def _doors(settings, monkeypatch):
    settings.CRON_SECRET, settings.ADMIN_API_KEY, settings.MAIL = "the cron secret", "the admin's key", True
    monkeypatch.setattr(throttles, "OF_ADDRESS", (SHORT, LONG))
    monkeypatch.setattr(throttles, "OF_ACCOUNT", ACCOUNT)


def later(seconds: float) -> None:
    """What the counters look like so many seconds from now."""
    Throttle.objects.update(free_at=F("free_at") - seconds)


class Door:
    """Somebody at an address, trying one thing after the other."""

    def __init__(self, address: str = HERE):
        self.client = ApiClient(REMOTE_ADDR=address)

    def __call__(self, account: str, secret: str, **headers: str):
        raise NotImplementedError


class SignIn(Door):
    page = "web:sign-in"

    def __call__(self, account, secret, **headers):
        fields = {"username": account, "password": secret}
        return self.client.post(reverse(self.page), fields, headers=headers)


class AdminSignIn(SignIn):
    page = "admin:login"


class Key(Door):
    def __call__(self, account, secret, **headers):
        return self.client.get("/api/jobs/", headers={"Authorization": f"Bearer {secret}", **headers})


class AdminKey(Door):
    def __call__(self, account, secret, **headers):
        return self.client.get("/api/ingest/jobs", headers={"X-Admin-Key": secret, **headers})


class Cron(Door):
    def __call__(self, account, secret, **headers):
        return self.client.get("/api/cron/cleanup-jobs/", headers={"Authorization": f"Bearer {secret}", **headers})


class Reset(Door):
    def __call__(self, account, secret, **headers):
        return self.client.post(reverse("web:reset"), {"email": f"{account}@example.com"}, headers=headers)


DOORS = [SignIn, AdminSignIn, Key, AdminKey, Cron, Reset]


def tries_until_refused(door: Door, account: str = "", **headers: str) -> int:
    """How many tries, each of another account unless one is named, were answered before the first 429."""
    for number in range(20):
        if door(account or f"user{number}", f"js_{number:03}wrong", **headers).status_code == 429:
            return number
    raise AssertionError("20 tries, and no 429")


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_one_address_has_so_many_tries_and_then_waits_as_long_as_it_was_told(door, ann):
    clock = ACCOUNT if door in (AdminKey, Cron) else SHORT  # one secret is one account, whose tries are over first
    there = door(HERE)
    assert tries_until_refused(there, X_Forwarded_For="203.0.113.1", X_Real_IP="203.0.113.1") == clock.tries
    for forged in ("203.0.113.2", f"{HERE}, 203.0.113.3", "::1"):
        answer = there("other", "js_other", X_Forwarded_For=forged, X_Real_IP=forged, Forwarded=f"for={forged}")
        assert answer.status_code == 429
    wait = int(answer["Retry-After"])
    assert clock.interval - 60 < wait <= clock.interval
    later(wait - 60)
    assert there("other", "js_other").status_code == 429
    later(60)
    assert there("other", "js_other").status_code != 429


@pytest.mark.parametrize("door", [SignIn, AdminSignIn, Reset], ids=lambda door: door.__name__)
def test_one_account_has_so_many_tries_from_wherever(door, ann):
    answers = [door(f"198.51.100.{number}")("ann", "wrong").status_code for number in range(ACCOUNT.tries + 2)]
    assert answers == [answers[0]] * ACCOUNT.tries + [429, 429]
    assert door("198.51.100.1")("Ann", "wrong").status_code == 429  # however it is spelt


def test_a_thousand_tries_are_refused_and_write_nothing_more():
    tried = [Attempt("sign-in", f"user{number}", HERE) for number in range(1000)]
    for attempt in tried[: SHORT.tries]:
        attempt.count()
    rows = list(Throttle.objects.order_by("pk").values())
    for attempt in tried[SHORT.tries :]:
        with pytest.raises(Refused) as refused:
            attempt.count()
        assert 0 < refused.value.retry_after <= SHORT.interval
    assert list(Throttle.objects.order_by("pk").values()) == rows


def test_the_second_clock_holds_whoever_waits_out_the_first():
    counted = 0
    for number in range(50):
        try:
            Attempt("sign-in", f"user{number}", HERE).count()
            counted += 1
        except Refused:
            pass
        later(SHORT.interval)
    assert counted <= LONG.tries + 50 * SHORT.interval / LONG.interval + 1 < 50


def test_behind_a_proxy_its_own_entry_counts_and_no_other(settings, ann):
    settings.TRUST_PROXY = True
    door = SignIn("127.0.0.1")
    for number in range(SHORT.tries + 1):
        answer = door(f"user{number}", "wrong", X_Forwarded_For=f"203.0.113.{number}, {HERE}")
    assert answer.status_code == 429
    assert door("ann", "wrong", X_Forwarded_For=f"{HERE}, {THERE}").status_code == 200


@pytest.mark.parametrize(
    ("meta", "address"),
    [
        ({"REMOTE_ADDR": "2001:db8::1"}, "2001:db8::/64"),
        ({"REMOTE_ADDR": "2001:db8::ffff:1"}, "2001:db8::/64"),
        ({"REMOTE_ADDR": "::ffff:192.0.2.1"}, HERE),
        ({"REMOTE_ADDR": ""}, ""),
        ({"REMOTE_ADDR": HERE, "HTTP_X_FORWARDED_FOR": "unknown"}, HERE),
        ({"REMOTE_ADDR": HERE, "HTTP_X_FORWARDED_FOR": ""}, HERE),
    ],
)
def test_addresses(settings, meta, address):
    settings.TRUST_PROXY = True
    assert throttles.address_of(meta) == address


# --- whom it does not hit -------------------------------------------------------------------------------------------


def test_others_sign_in_meanwhile_and_the_victim_at_the_own_machine_does(ann, bob):
    assert SignIn("203.0.113.7")("ann", "ann-password").status_code == 302  # once, before
    tries_until_refused(SignIn("198.51.100.1"), "ann")
    assert SignIn("198.51.100.2")("ann", "ann-password").status_code == 429  # the account's tries are over
    assert SignIn("203.0.113.8")("bob", "bob-password").status_code == 302
    assert SignIn("203.0.113.7")("ann", "ann-password").status_code == 302
    later(ACCOUNT.interval)
    assert SignIn("198.51.100.2")("ann", "ann-password").status_code == 302


def test_a_right_password_counts_for_nothing(ann):
    for _ in range(SHORT.tries + 2):
        assert SignIn()("ann", "ann-password").status_code == 302


def test_who_signs_in_at_a_known_address_gives_strangers_no_more_tries(ann):
    SignIn("203.0.113.7")("ann", "ann-password")
    tries_until_refused(SignIn("198.51.100.1"), "ann")
    for _ in range(3):
        assert SignIn("203.0.113.7")("ann", "ann-password").status_code == 302
    assert SignIn("198.51.100.2")("ann", "wrong").status_code == 429


def test_a_right_key_is_never_held_up_and_asks_no_counter(ann, django_assert_num_queries):
    tries_until_refused(Key())
    right = ApiClient(ann, REMOTE_ADDR=HERE)
    assert right.get("/api/tokens/").status_code == 200  # last_used_at is written
    with django_assert_num_queries(3) as asked:
        assert right.get("/api/tokens/").status_code == 200
    assert "throttle" not in str(asked.captured_queries)


def test_a_right_cron_secret_and_admin_key_work_while_a_stranger_tries(op):
    for door, secret in ((AdminKey, "the admin's key"), (Cron, "the cron secret")):
        assert door(HERE)("", secret).status_code == 200
        tries_until_refused(door("198.51.100.1"))
        assert door(HERE)("", secret).status_code == 200
        assert door(THERE)("", secret).status_code == 429


def test_mail_to_one_address_is_bounded(ann):
    ann.email = "ann@example.com"
    ann.save()
    for number in range(6):
        Reset(f"198.51.100.{number}")("ANN" if number % 2 else "ann", "")
    assert len(mail.outbox) == ACCOUNT.tries


def test_no_name_and_no_address_is_kept(ann):
    SignIn()("ann", "wrong")
    assert Throttle.objects.count() == 3
    assert "ann" not in str(list(Throttle.objects.values())) and HERE not in str(list(Throttle.objects.values()))


def test_counters_that_owe_nothing_are_swept(ann):
    SignIn()("ann", "wrong")
    assert throttles.sweep() == 0
    later(3600 + LONG.interval)
    assert throttles.sweep() == 3 and Throttle.objects.count() == 0
