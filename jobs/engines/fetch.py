"""Downloading from an address that a stranger named, through the guard of `outbound`."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx

from . import outbound
from .outbound import Failed, Refused

__all__ = ["Failed", "Refused", "fetch"]
SECONDS = 10.0  # without a byte


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

    Only https, on port 443, to public addresses. `loopback` allows http(s) to this host, too, for rehearsals. Raises
    Refused or Failed; `target` is then not to be used.
    """
    until = time.monotonic() + seconds
    trusted = outbound.LOOPBACK if loopback else ()
    address = outbound.check(url, trusted=trusted)
    ips = outbound.resolve(address, trusted=trusted)
    timeout = httpx.Timeout(SECONDS, connect=outbound.CONNECT)
    with httpx.Client(timeout=timeout, trust_env=False, verify=address.scheme == "https") as client:
        for number, ip in enumerate(ips, 1):
            try:
                _pull(client, address, ip, target, most, until, check)
                return
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if number == len(ips):
                    raise Failed("The file's host cannot be reached.") from error
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                raise Failed("The file's host did not answer as it should.") from error


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
    with client.stream("GET", **outbound.aim(address, ip)) as answer:
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
