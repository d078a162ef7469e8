"""Calling an address that a stranger named: only public hosts, judged by the address that is connected to.

A name is resolved once, every address that it has must be allowed, and one of those is connected to, under the name
that was asked for. Redirects, proxies, cookies and compression are nobody's here.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import lru_cache
from typing import Any, NamedTuple

import httpx

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(*texts: str) -> tuple[Network, ...]:
    """The networks that the texts name, as `10.0.0.0/8`. ValueError if one is none."""
    return tuple(ipaddress.ip_network(text) for text in texts)


LOOPBACK = networks("127.0.0.0/8", "::1/128")
ANYWHERE = networks("0.0.0.0/0", "::/0")  # for addresses that the operator set
UNICAST = ipaddress.ip_network("2000::/3")  # all that is given out of IPv6 (RFC 4291, section 2.4)
FOREIGN = networks(  # `is_global` of Python 3.11 lets these through, and they lead to private hosts (FAULTS trap 19)
    "100.64.0.0/10",  # carriers' own
    "168.63.129.16/32",  # a cloud's own service, at a public address
    "192.88.99.0/24",  # relays of 6to4
    "2001::/23",  # Teredo and other protocols
    "2002::/16",  # 6to4: an IPv4 address in disguise
)
HTTPS = (443,)
CONNECT = 5.0  # seconds until the next address of a name is tried
TRIES = 3  # addresses of one name that are connected to


class Refused(Exception):
    """The address is not one that may be called; the text is for the user and does not repeat it."""


class Failed(Exception):
    """It could not be called; the text is for the user and does not repeat the address."""


class Answer(NamedTuple):
    """What a host answered: its status, headers and the first bytes of its body."""

    status: int
    headers: httpx.Headers
    body: bytes


def check(url: str, *, ports: Sequence[int] = HTTPS, trusted: Sequence[Network] = ()) -> httpx.URL:
    """The parsed address, judged as far as is possible without asking for a name. Raises Refused."""
    try:
        address = httpx.URL(url)
        host = address.raw_host.decode("ascii") if address.host else ""  # reading `host` judges its Punycode
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise Refused("The address is malformed.") from error
    if not re.fullmatch(r"[A-Za-z0-9_.:-]*", host):
        raise Refused("The address is malformed.")
    if address.scheme not in ("http", "https") or not host:
        raise Refused("The address is not https.")
    if address.userinfo:
        raise Refused("The address holds a user name.")
    if not trusted:
        _form(address, ports)
    if numbers := _numbers(host):
        _judge(address, numbers, ports, trusted)
    return address


def resolve(address: httpx.URL, *, ports: Sequence[int] = HTTPS, trusted: Sequence[Network] = ()) -> list[str]:
    """The addresses of a checked URL's host, all of them judged: https on one of `ports` to public ones, or anything
    to those in `trusted`. Raises Refused, or Failed where there is none."""
    try:
        host = address.raw_host.decode("ascii")
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, _port(address), type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise Failed("The host has no address.") from error
    _judge(address, found, ports, trusted)
    return found[:TRIES]


def aim(address: httpx.URL, ip: str) -> dict[str, Any]:
    """What httpx takes to connect to `ip` and to speak there, and be certified, as the host of `address`."""
    extensions = {"sni_hostname": address.raw_host.decode("ascii")} if address.scheme == "https" else {}
    headers = {"Host": address.netloc.decode("ascii"), "Accept-Encoding": "identity"}
    return {"url": address.copy_with(host=ip), "headers": headers, "extensions": extensions}


def is_loopback_url(url: str) -> bool:
    """Whether an http(s) address names this host and nothing else, as `localhost` or by number."""
    try:
        return is_loopback(httpx.URL(url).host)
    except httpx.InvalidURL:
        return False


def is_loopback(host: str) -> bool:
    """Whether a host, by its name or number, is this one and nothing else."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_public(ip: str) -> bool:
    """Whether an address is one of the open internet: no private, local, shared, mapped or multicast one."""
    address = _unmapped(ip)
    if address.version == 6 and address not in UNICAST:
        return False
    return address.is_global and not address.is_multicast and not _within(address, FOREIGN)


async def post(
    url: str,
    body: bytes,
    headers: dict[str, str],
    *,
    seconds: float,
    most: int,
    ports: Sequence[int] = HTTPS,
    trusted: Sequence[Network] = (),
    names: Executor | None = None,
) -> Answer:
    """POST `body` and read at most `most` bytes of the answer, all within `seconds`; names are resolved in `names`.

    A redirect is an answer like any other. Each call has its own connection: one that is certified for a name must
    not be used under another. Raises Refused, Failed.
    """
    try:
        async with asyncio.timeout(seconds):
            address = check(url, ports=ports, trusted=trusted)
            loop = asyncio.get_running_loop()
            ips = await loop.run_in_executor(names, lambda: resolve(address, ports=ports, trusted=trusted))
            return await _post(address, ips, body, headers, most, seconds)
    except TimeoutError as error:
        raise Failed(f"No answer within {seconds:g} seconds.") from error


async def _post(
    address: httpx.URL, ips: list[str], body: bytes, headers: dict[str, str], most: int, seconds: float
) -> Answer:
    timeout = httpx.Timeout(seconds, connect=CONNECT)
    async with httpx.AsyncClient(trust_env=False, verify=_certificates(), timeout=timeout) as client:
        for number, ip in enumerate(ips, 1):
            target = aim(address, ip)
            target["headers"] |= headers
            try:
                async with client.stream("POST", content=body, **target) as answer:
                    return Answer(answer.status_code, answer.headers, await _beginning(answer, most))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if number == len(ips):
                    raise Failed(f"The host cannot be reached{_certified(error)}.") from error
            except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:  # ssl's own come as OSError
                raise Failed("The host did not answer as it should.") from error
    raise Failed("The host has no address.")


async def _beginning(answer: httpx.Response, most: int) -> bytes:
    """The first bytes as they were sent: what is compressed is not unpacked."""
    read = b""
    async for piece in answer.aiter_raw(most):
        read += piece
        if len(read) >= most:
            break
    return read[:most]


def _certified(error: httpx.TransportError) -> str:
    return ": its certificate is not valid for it" if "CERTIFICATE_VERIFY" in str(error) else ""


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    """Loading the authorities takes 30 ms, so a process does it once."""
    return httpx.create_ssl_context(trust_env=False)


def _port(address: httpx.URL) -> int:
    return address.port or (443 if address.scheme == "https" else 80)


def _form(address: httpx.URL, ports: Sequence[int]) -> None:
    """Refused unless it is https on a port that may be called."""
    if address.scheme != "https":
        raise Refused("The address is not https.")
    if _port(address) not in ports:
        raise Refused(f"The address names a port; allowed is {', '.join(map(str, ports))}.")


def _numbers(host: str) -> list[str]:
    """The addresses that a host names without being asked for: numbers in all spellings, and this host."""
    if host.rstrip(".") == "localhost" or host.endswith((".localhost", ".localhost.")):
        return ["127.0.0.1"]
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)]
    except (OSError, UnicodeError):
        return []


def _judge(address: httpx.URL, ips: Sequence[str], ports: Sequence[int], trusted: Sequence[Network]) -> None:
    if ips and all(_within(_unmapped(ip), trusted) for ip in ips):
        return
    _form(address, ports)
    if not all(is_public(ip) or _within(_unmapped(ip), trusted) for ip in ips):
        raise Refused("The host is not on the open internet.")


def _unmapped(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(ip)
    return getattr(address, "ipv4_mapped", None) or address


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, nets: Sequence[Network]) -> bool:
    return any(address.version == net.version and address in net for net in nets)
