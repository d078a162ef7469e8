"""`manage.py up`: the processes of one platform on one machine, started, restarted and ended together."""

import contextlib
import fcntl
import http.client
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from . import broker

logger = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds before a process that ended is started again
LIVED = 30.0  # seconds after which a process counts as having worked: its next wait is the first one again
ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
QUIET = "ignore:You're running the worker"  # Celery says it five lines long for each worker; we say it once
GRACE_ADDED = 3.0  # seconds that the processes get beyond the workers' own JOB_SHUTDOWN_GRACE


class CannotStart(Exception):
    """The platform cannot be started here; the text says why in one sentence."""


@dataclass
class Process:
    """One child. `started` and `due` are monotonic; `due` is when it is to be started (again)."""

    name: str
    command: list[str]
    running: subprocess.Popen | None = None
    started: float = 0.0
    due: float = 0.0
    wait: float = field(default=FIRST_WAIT)

    def start(self) -> None:
        """Called from the main thread only: the child ends with the thread that started it (PDEATHSIG)."""
        self.started = time.monotonic()
        self.running = subprocess.Popen(
            [*tether(), *self.command],
            cwd=settings.BASE_DIR,
            env={**os.environ, "JOBSITE_PROCESS": self.name, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": QUIET},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor alone, which then ends the others
        )

    def signal(self, number: int) -> None:
        """Signal its main process; KILL goes to all of its group."""
        if self.running and self.running.poll() is None:
            if number == signal.SIGKILL:
                os.killpg(self.running.pid, number)
            else:
                self.running.send_signal(number)

    def ended(self) -> bool:
        """Whether it has ended; if so, its leftovers are killed and its next start is planned."""
        if self.running is None or (code := self.running.poll()) is None:
            return False
        kill_group(self.running.pid)
        now = time.monotonic()
        self.wait = FIRST_WAIT if now - self.started >= LIVED else min(self.wait * 2, LONGEST_WAIT)
        self.due = now + self.wait
        self.running = None
        logger.warning("%s ended (%s); it starts again in %.0f s", self.name, code, self.wait)
        return True


@lru_cache
def tether() -> tuple[str, ...]:
    """A prefix by which the kernel kills a child once the supervisor is gone, even by SIGKILL. Linux has it."""
    prefix = ("setpriv", "--pdeathsig", "KILL", "--")
    if shutil.which("setpriv") and subprocess.run([*prefix, "true"], stderr=subprocess.DEVNULL).returncode == 0:
        return prefix
    logger.warning("util-linux's setpriv is missing: should this process be killed with -9, its children live on")
    return ()


def kill_group(group: int) -> None:
    """KILL what is left of a child's process group: pool children whose main process died, say."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def processes() -> list[Process]:
    """What this platform consists of, in the order in which it is started; it is ended in the opposite one."""
    python, tag = sys.executable, settings.RUNTIME.name.rpartition("-")[2]
    celery = [python, "-m", "celery", "-A", "jobsite", "--quiet"]
    worker = [*celery, "worker", "-P", "prefork", "--without-gossip", "--without-mingle"]
    slots = str(settings.WORKER_SLOTS)
    web = ["--host", settings.HOST, "--port", str(settings.PORT), "--ws", "none", "--no-access-log"]
    web += ["--timeout-graceful-shutdown", "3", "--no-proxy-headers", "--no-server-header", "--lifespan", "off"]
    web += ["--loop", "asyncio", "--http", "h11"]  # whatever else is installed: what is tested is what runs
    return [
        *([Process("broker", broker.command())] if settings.EMBEDDED_BROKER else []),
        Process("web", [python, "-m", "uvicorn", "jobsite.asgi:application", *web]),
        Process("worker", [*worker, "-Q", "cpu,gpu,remote", "-c", slots, "-n", f"worker-{tag}@%h"]),
        Process("upkeep", [*worker, "-Q", "upkeep", "-c", "1", "-n", f"upkeep-{tag}@%h"]),
        Process("beat", [*celery, "beat", "--pidfile="]),
    ]


def lock(home: Path) -> int:
    """Hold `home` for this process, until it ends. CannotStart if another platform runs on it."""
    try:
        descriptor = os.open(home / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as wrong:
        raise CannotStart(f"Jobsite cannot write to {home} ({wrong.strerror}); set JOBSITE_HOME.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise CannotStart(f"Jobsite already runs on {home}; end it first or set JOBSITE_HOME.") from None
    return descriptor


def hold_port() -> socket.socket:
    """A free port of this host, which nobody else is given until the socket is closed.

    It does not listen, and allows its address to be used again: a server that does likewise (uvicorn) listens there.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def check_port(host: str, port: int) -> None:
    """CannotStart if something else listens there, which uvicorn would only find out later, again and again."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as wrong:  # a name that nobody knows is one, too
        raise CannotStart(f"Cannot listen on {host} port {port} ({wrong.strerror}); set HOST or PORT.") from None


def healthy() -> bool:
    """Whether `/health` of our own web process answers 200."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.HOST, settings.HOST)  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(host, settings.PORT, timeout=2)
    try:
        site = urlsplit(settings.SITE_URL)  # asked as the proxy asks: SSL_REDIRECT would send us elsewhere
        connection.request("GET", "/health", headers={"Host": site.netloc, "X-Forwarded-Proto": site.scheme})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def up(*, before: Callable[[], None], announce: Callable[[], None]) -> None:
    """Keep the platform up until TERM, INT or HUP, then end all of it within the grace.

    Calls `before` once the home is ours, and `announce` once the platform is healthy. Runs in the main thread.
    CannotStart if the home or the port is taken.
    """
    held = lock(settings.HOME)
    check_port(settings.HOST, settings.PORT)
    ending: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: ending.append(number)) for number in ENDS}
    children = []
    try:
        before()
        children = processes()
        announced, asked = False, 0.0
        while not ending:
            now = time.monotonic()
            for child in children:
                if not child.ended() and child.running is None and child.due <= now:
                    try:
                        child.start()
                    except OSError as wrong:  # no memory, no process id: later, perhaps
                        logger.error("%s could not be started: %s", child.name, wrong)
                        child.due = now + child.wait
            if not announced and now - asked > 0.5:
                asked = now
                if announced := healthy():
                    announce()
            time.sleep(0.1)
    finally:
        end(children)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(held)


def end(children: list[Process]) -> None:
    """TERM to all but the broker, which the others need for their last words; then the broker; KILL after the grace."""
    deadline = time.monotonic() + settings.CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT + GRACE_ADDED
    last = [child for child in children if child.name == "broker"]
    for wave in ([child for child in children if child.name != "broker"], last):
        for child in wave:
            child.signal(signal.SIGTERM)
        while any(child.running and child.running.poll() is None for child in wave) and time.monotonic() < deadline:
            time.sleep(0.05)
        for child in wave:
            child.signal(signal.SIGKILL)
            if child.running:
                child.running.wait()
                kill_group(child.running.pid)
        deadline = max(deadline, time.monotonic() + 2.0)
