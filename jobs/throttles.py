"""How often somebody may try a secret: by address and by account, counted for all web processes together.

A counter is one row with one time, `free_at` (the generic cell rate algorithm, as of ATM Forum TM 4.0): each try moves
it on by the clock's interval, and a try is refused while it lies further ahead than the clock's tries allow. So what is
refused costs no write, and the wait that is told is the true one.

An address has a short and a long clock; an account only a short one, and none for addresses that it came from lately:
a stranger who tries a victim's name from everywhere can keep the victim's own machine out for not a second.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.db.models import F
from django.db.models.functions import Greatest, Now
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import salted_hmac

from .errors import ErrorCode, Refused
from .models import Throttle

KNOWN = 30 * 86_400.0  # seconds that an address stays known to an account


@dataclass(frozen=True)
class Clock:
    """So many tries at once, then one every `seconds / tries`."""

    tries: int
    seconds: float

    @property
    def interval(self) -> float:
        return self.seconds / self.tries


OF_ADDRESS = (Clock(30, 60), Clock(300, 86_400))
OF_ACCOUNT = Clock(10, 300)
OF_MAILBOX = Clock(3, 3600)  # letters that strangers can have sent to anybody


@dataclass(frozen=True)
class Attempt:
    """One try at a door: `sign-in`, `reset`, `sign-up`, `join`, `key`, `admin-key` or `cron`.

    `account` is what was tried as it came (a name, an address for mails, a key's first characters), whether there is
    such a thing or not: both take the same way.
    """

    door: str
    account: str
    address: str

    def check(self) -> None:
        """Refused(rate_limited) if no try is left. Only reads."""
        self._refuse(max(wait for _, _, wait in self._counters()))

    def count(self) -> None:
        """Count one try; Refused(rate_limited) if none was left."""
        counters = self._counters()
        self._refuse(max(wait for _, _, wait in counters))
        for key, clock, _ in counters:
            self._refuse(_move_on(key, clock))

    def succeeded(self) -> None:
        """It was the right one: what `count` counted is given back, and the account knows this address."""
        for key, clock, _ in self._counters():
            Throttle.objects.filter(pk=key).update(free_at=F("free_at") - clock.interval)
        self.remember()

    def remember(self) -> None:
        """From now on the account knows this address. Written once a day at most."""
        until = timezone.now().timestamp() + KNOWN
        if not Throttle.objects.filter(pk=self._known(), free_at__gt=until - 86_400).exists():
            Throttle.objects.update_or_create(pk=self._known(), defaults={"free_at": until})

    def _clocks(self) -> dict[str, Clock]:
        short, long = OF_ADDRESS
        return {
            _key(self.door, "address", self.address): short,
            _key(self.door, "address, long", self.address): long,
            _key(self.door, "account", self.account): OF_MAILBOX if self.door == "sign-up" else OF_ACCOUNT,
        }

    def _known(self) -> str:
        return _key(self.door, "known", self.account, self.address)

    def _counters(self) -> list[tuple[str, Clock, float]]:
        """(key, clock, seconds to wait) of each counter that holds for this attempt."""
        clocks = self._clocks()
        rows = Throttle.objects.filter(pk__in=[*clocks, self._known()]).annotate(now=Now())
        ahead = {row.pk: row.free_at - row.now.timestamp() for row in rows}
        return [
            (key, clock, ahead.get(key, 0.0) - (clock.tries - 1) * clock.interval)
            for key, clock in clocks.items()
            if clock is not OF_ACCOUNT or ahead.get(self._known(), 0.0) <= 0
        ]

    @staticmethod
    def _refuse(wait: float) -> None:
        if wait > 0:
            raise Refused(ErrorCode.rate_limited, f"Too many tries. Wait {wait:.0f} seconds.", retry_after=wait)


def _move_on(key: str, clock: Clock) -> float:
    """Count one try. Returns 0, or the seconds to wait, with nothing counted."""
    Throttle.objects.get_or_create(pk=key, defaults={"free_at": timezone.now().timestamp()})
    row = Throttle.objects.filter(pk=key)
    now = row.values_list(Now(), flat=True).first()
    if now is None:  # swept meanwhile
        return 1.0
    latest = now.timestamp() + (clock.tries - 1) * clock.interval
    if row.filter(free_at__lte=latest).update(free_at=Greatest(F("free_at"), now.timestamp()) + clock.interval):
        return 0.0
    return max(1.0, row.values_list("free_at", flat=True).get() - latest)


def wrong_key(meta: Mapping[str, Any], secret: str) -> None:
    """Count an API key that nobody has; Refused(rate_limited) if there were too many. The right ones are never counted
    nor held up: they have 256 random bits, which nobody finds by trying."""
    Attempt("key", secret[:9], address_of(meta)).count()


def sweep() -> int:
    """Delete counters that have owed nothing for an hour. Returns how many."""
    return Throttle.objects.filter(free_at__lt=timezone.now().timestamp() - 3600).delete()[0]


def attempt(request: HttpRequest, door: str, account: str) -> Attempt:
    """The attempt that a Django request is."""
    return Attempt(door, account, address_of(request.META))


def address_of(meta: Mapping[str, Any]) -> str:
    """Who asks: the connection's other end; with TRUST_PROXY the last entry of X-Forwarded-For, which the proxy in
    front wrote, whatever came before it. Of an IPv6 address its network (/64): one machine has all of those."""
    entry = meta.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip() if settings.TRUST_PROXY else ""
    for text in (entry, meta.get("REMOTE_ADDR", "")):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if isinstance(address, ipaddress.IPv6Address):
            network = ipaddress.ip_network((address, 64), strict=False)
            return str(address.ipv4_mapped or network)
        return str(address)
    return ""


def _key(*parts: str) -> str:
    return salted_hmac("jobs.throttles", "\0".join(parts), algorithm="sha256").hexdigest()


class ThrottledBackend(ModelBackend):
    """Names and passwords, for every door that asks `django.contrib.auth.authenticate`: the pages' and the admin's.

    The try is counted before the password is looked at, so many at the same time gain nothing. Unknown, wrong and shut
    out take the same way, and one hash each.
    """

    def authenticate(self, request, username=None, password=None, **kwargs):
        User = get_user_model()
        name = kwargs.get(User.USERNAME_FIELD) if username is None else username
        if request is None or name is None:  # not from outside
            return super().authenticate(request, username, password, **kwargs)
        tried = attempt(request, "sign-in", name.casefold())
        tried.count()
        user = super().authenticate(request, username, password, **kwargs)
        if user is not None:
            tried.succeeded()
        return user

    async def aauthenticate(self, request, username=None, password=None, **kwargs):
        return await sync_to_async(self.authenticate)(request, username, password, **kwargs)
