"""Downloading from an address that a stranger named: only public hosts, judged by the address connected to."""

import ipaddress
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx

SECONDS = 10.0  # without a byte
FOREIGN = [  # `is_global` of Python 3.11 lets these through, and they lead to private hosts (FAULTS trap 19)
    ipaddress.ip_network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96", "fec0::/10", "100.64.0.0/10")
]


class Refused(Exception):
    """The address is not one that may be fetched; the text is for the user and does not repeat it."""


class Failed(Exception):
    """It could not be fetched; the text is for the user and does not repeat the address."""


def fetch(
    url: str,
    target: Path,
    *,
    most: int,
    seconds: float,
    check: Callable[[], None] = lambda: None,
    loopback: bool = False,
) -> None:
    """Write what `url` holds to `target`, at most `most` bytes within `seconds`; `check` is called while it comes.

    Only https, on port 443, to public addresses: the name is resolved once, every address that it has must be public,
    and one of them is connected to. No redirects, no proxies, no compression. `loopback` allows http(s) to this
    host alone, for rehearsals. Raises Refused or Failed; `target` is then not to be used.
    """
    until = time.monotonic() + seconds
    address = _address(url, loopback=loopback)
    ips = _resolve(address.host, address.port or (443 if address.scheme == "https" else 80), loopback=loopback)
    with httpx.Client(timeout=SECONDS, trust_env=False, verify=address.scheme == "https") as client:
        for number, ip in enumerate(ips, 1):
            try:
                _pull(client, address, ip, target, most, until, check)
                return
            except httpx.ConnectError as error:
                if number == len(ips):
                    raise Failed("The file's host cannot be reached.") from error
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                raise Failed("The file's host did not answer as it should.") from error


def is_loopback_url(url: str) -> bool:
    """Whether an http(s) address names this host and nothing else, as `localhost` or by number."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_public(ip: str) -> bool:
    """Whether an address is one of the open internet: no private, local, shared, mapped or multicast one."""
    address = ipaddress.ip_address(ip)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    foreign = any(address.version == net.version and address in net for net in FOREIGN)
    return address.is_global and not address.is_multicast and not foreign


def _address(url: str, *, loopback: bool) -> httpx.URL:
    """The parsed address; Refused unless its scheme, port and form are allowed."""
    try:
        address = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise Refused("The file's address is malformed.") from error
    if loopback and address.scheme in ("http", "https") and is_loopback_url(url):
        return address
    if address.scheme != "https" or not address.host:
        raise Refused("The file's address is not https.")
    if address.userinfo or address.port not in (None, 443):
        raise Refused("The file's address holds a user name or a port.")
    return address


def _resolve(host: str, port: int, *, loopback: bool) -> list[str]:
    """The first addresses of `host`, after all of them were judged."""
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise Failed("The file's host has no address.") from error
    allowed = all(is_public(ip) for ip in found)
    if loopback and not allowed:
        allowed = all(ipaddress.ip_address(ip).is_loopback for ip in found)
    if not found or not allowed:
        raise Refused("The file's host is not on the open internet.")
    return found[:3]


def _pull(
    client: httpx.Client,
    address: httpx.URL,
    ip: str,
    target: Path,
    most: int,
    until: float,
    check: Callable[[], None],
) -> None:
    """Connect to `ip` as the host of `address`, and write what it gives."""
    headers = {"Host": address.netloc.decode("ascii"), "Accept-Encoding": "identity"}
    extensions = {"sni_hostname": address.host} if address.scheme == "https" else {}
    with client.stream("GET", address.copy_with(host=ip), headers=headers, extensions=extensions) as answer:
        if answer.status_code != 200:
            raise Failed(f"The file's host answered {answer.status_code}.")
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise Failed("The file's host sent it compressed.")
        if int(answer.headers.get("Content-Length", "0") or 0) > most:
            raise Failed("The file is larger than allowed.")
        _write(answer, target, most, until, check)


def _write(answer: httpx.Response, target: Path, most: int, until: float, check: Callable[[], None]) -> None:
    size = 0
    with open(target, "wb") as file:
        for piece in answer.iter_raw():
            size += len(piece)
            if size > most:
                raise Failed("The file is larger than allowed.")
            if time.monotonic() > until:
                raise Failed("The file took too long to come.")
            check()
            file.write(piece)
