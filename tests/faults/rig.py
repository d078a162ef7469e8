"""Real processes for a test: a broker, workers, Beat, web, on the test's own database and home."""

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

from django.conf import settings
from django.db import OperationalError, connection, transaction

from jobs import dispatch, lifecycle, procfs
from jobs.engines import ffmpeg
from jobs.models import FINAL, Job, Slot
from jobsite import broker
from jobsite.celery import app
from jobsite.supervisor import hold_port
from tests import invariants
from tests.faults.zygote import Forked, Zygote
from tests.jobs.conftest import PARAMS
from tests.waiting import until
from tokens.models import Account

T, M = 4.0, 1.0  # seconds: the tests' heartbeat timeout and monitor period; a busy machine stands still for two
CLOCKS = {
    "JOB_HEARTBEAT_SECONDS": "0.25",
    "JOB_WATCH_SECONDS": "0.1",
    "JOB_HEARTBEAT_TIMEOUT": str(T),
    "JOB_MONITOR_SECONDS": str(M),
    "JOB_CLEANUP_SECONDS": "2",
    "JOB_DISPATCH_SECONDS": "0.5",
    "JOB_ABORT_GRACE": "1.5",
    "JOB_SHUTDOWN_GRACE": "5",
    "JOB_BACKOFF_INITIAL": "0.2",
    "JOB_BACKOFF_MAX": "0.5",
}


def database_url(name: str | None = None, **where) -> str:
    """The test database as DATABASE_URL says it to a child process."""
    known = connection.settings_dict
    name = name or str(known["NAME"])
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    place = where or {"host": known["HOST"], "port": known["PORT"]}
    user = known["USER"] + (f":{quote(known['PASSWORD'])}" if known["PASSWORD"] else "")
    port = f":{place['port']}" if place.get("port") else ""
    return f"postgres://{user}@{quote(str(place['host']), safe='')}{port}/{name}"


zygote = functools.cache(Zygote)


class Platform:
    """Start what a test needs, hurt it, and `close` it; all children end with the test."""

    def __init__(self, **env: str):
        self.folder = Path(tempfile.mkdtemp(prefix="jb-"))  # short: it holds the broker's socket
        self.socket = self.folder / "b"
        self.env = {
            **os.environ,
            **CLOCKS,
            "JOBSITE_HOME": str(settings.HOME),
            "DATABASE_URL": database_url(),
            "CELERY_BROKER_URL": f"redis+socket://{self.socket}",
            "JOBSITE_KINDS": "tests.kitchen",
            **env,
        }
        self.children: dict[str, subprocess.Popen | Forked] = {}
        self.logs: dict[str, Path] = {}
        self.held: list[socket.socket] = []  # the web processes' ports
        dispatch.flush(5)  # the thread of the nudges uses the connection that is dropped
        app.conf.broker_write_url = self.env["CELERY_BROKER_URL"]  # CELERY_BROKER_URL would win over broker_url
        dispatch.forget_connections()

    # --- processes --------------------------------------------------------------------------------------------------

    def start(self, name: str, command: list[str], **env: str) -> subprocess.Popen | Forked:
        self.logs[name] = self.folder / f"{name}.log"
        self.logs[name].touch()
        if command[0] == sys.executable:
            words = {"cwd": settings.BASE_DIR, "env": self.env | env, "log": self.logs[name]}
            self.children[name] = zygote().start(command[1:], **words)
            return self.children[name]
        with open(self.logs[name], "ab") as log:
            child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                cwd=settings.BASE_DIR,
                env=self.env | env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.children[name] = child
        return child

    def broker(self) -> subprocess.Popen | Forked:
        args = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--appendonly", "yes"]
        child = self.start("broker", [broker.binary(), *args, "--save", "", "--daemonize", "no"])
        until(lambda: self.valkey("PING") == "PONG", seconds=20)
        return child

    def valkey(self, *command: str) -> str | None:
        """One command to the broker; None if it does not answer."""
        import redis

        try:
            client = redis.Redis(unix_socket_path=str(self.socket), decode_responses=True, socket_timeout=2)
            answer = client.execute_command(*command)
        except (redis.RedisError, OSError):
            return None
        return "PONG" if answer is True and command == ("PING",) else answer

    def celery(self, name: str, *args: str, **env: str) -> subprocess.Popen | Forked:
        return self.start(name, [sys.executable, "-m", "celery", "-A", "jobsite", *args], **env)

    def worker(self, name: str = "worker", *, queues: str = "cpu,gpu", slots: int = 2, faults: str = "", **env: str):
        """A worker whose pool children are ready to run; `faults` is its JOBSITE_FAULTS."""
        if faults:
            env["JOBSITE_FAULTS"] = faults
        options = ["-P", "prefork", "-c", str(slots), "--without-gossip", "--without-mingle", "-l", "INFO"]
        child = self.celery(name, "worker", "-Q", queues, "-n", f"{name}@{self.folder.name}", *options, **env)
        until(lambda: Slot.objects.filter(parent_pid=child.pid).count() >= slots, seconds=40)
        return child

    def beat(self, name: str = "beat") -> None:
        """Beat, and the upkeep worker that does what it says."""
        if "upkeep" not in self.children:
            self.worker("upkeep", queues="upkeep", slots=1)
        self.celery(name, "beat", "--pidfile=", "-l", "INFO")

    def web(self) -> str:
        """The web process; returns its address once it answers."""
        self.held.append(hold_port())
        port = self.held[-1].getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        options = ["--port", str(port), "--lifespan", "off", "--log-level", "warning"]
        options += ["--loop", "asyncio", "--http", "h11"]  # as the supervisor says
        command = [sys.executable, "-m", "uvicorn", "jobsite.asgi:application", *options]
        self.start("web", command, PORT=str(port), SITE_URL=self.address)
        until(lambda: self.get("/livez")[0] == 200, seconds=60)
        return self.address

    def up(self) -> "Platform":
        """Broker, one worker with two slots, upkeep and Beat."""
        self.broker()
        self.worker()
        self.beat()
        return self

    def kill(self, name: str, number: int = signal.SIGKILL, *, wait: bool = True) -> None:
        os.kill(self.children[name].pid, number)
        if wait and number == signal.SIGKILL:
            self.children[name].wait(10)

    def pool(self, name: str = "worker") -> list[int]:
        """The pids of a worker's living pool children: each has its slot, which no other fork of it ever gets."""
        main = self.children[name].pid
        slots = set(Slot.objects.filter(parent_pid=main).values_list("pid", flat=True))
        return [pid for pid in children_of(main) if pid in slots]

    def passed(self, point: str) -> bool:
        """Whether some process has passed a named point of its JOBSITE_FAULTS."""
        return (settings.HOME / "faults" / point).exists()

    def arm(self, armed: str = "", *, of: list[str]) -> None:
        """Let only one of the points `of` a worker's JOBSITE_FAULTS happen from now on, or none."""
        for point in of:
            marker = settings.HOME / "faults" / point
            marker.parent.mkdir(exist_ok=True)
            marker.unlink(missing_ok=True) if point == armed else marker.touch()

    def ffmpeg_script(self, words: str) -> str:
        """The path of a shell script that can stand as FFMPEG."""
        script = self.folder / "ffmpeg-script"
        script.write_text(f"#!/bin/bash\n{words}\n")
        script.chmod(0o755)
        return str(script)

    def slow_ffmpeg(self) -> str:
        """The real FFmpeg, which draws a second of video in a second: it lives as long as the test wants it to."""
        return self.ffmpeg_script(f'exec "{ffmpeg.bundled()}" -re "$@"')

    def close(self) -> None:
        for child in self.children.values():
            for pid in {child.pid, *descendants(child.pid)}:
                _kill(pid)
        for child in self.children.values():
            child.wait(20)
        for name in self.logs:  # shown by pytest when the test fails
            print(f"--- {name}\n{self.log(name)[-4000:]}")
        for port in self.held:
            port.close()
        dispatch.flush(5)
        app.conf.broker_write_url = None
        dispatch.forget_connections()
        shutil.rmtree(settings.HOME / "faults", ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self, name: str) -> str:
        return self.logs[name].read_text(errors="replace")

    def is_well(self) -> bool:
        """Whether /health is green; what is red is printed, for the test that waits in vain."""
        status, report = self.get("/health")
        if status != 200:
            print(status, report)
        return status == 200

    # --- work -------------------------------------------------------------------------------------------------------

    def get(self, path: str, key: str = "", method: str = "GET", body: dict | None = None, timeout: float = 10):
        """(status, JSON) of a request to the web process; (0, None) if it does not answer."""
        request = urllib.request.Request(self.address + path, method=method)
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _json(error.read())
        except OSError:
            return 0, None


def _json(body: bytes):
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def cook(owner, *, max_attempts: int | None = None, limits: dict[str, float] | None = None, **params) -> Job:
    """A KITCHEN job of `owner`, in the queue; `limits` are its own run_limit and stall_limit in seconds."""
    return _submit(owner, "KITCHEN", PARAMS | params, max_attempts, limits)


def render(owner, *, max_attempts: int | None = None, limits: dict[str, float] | None = None, **params) -> Job:
    """A small RENDER job of `owner`, in the queue."""
    small = {"prompt": "A fault", "seconds": 3.0, "fps": 8, "width": 64, "height": 64, "seed": 0}
    return _submit(owner, "RENDER", small | params, max_attempts, limits)


def _submit(owner, kind: str, params: dict, max_attempts: int | None, limits: dict[str, float] | None) -> Job:
    with transaction.atomic():  # nobody claims it before it has its limits
        job, _ = lifecycle.submit(owner.pk, kind, params, max_attempts=max_attempts)
        if limits:
            Job.objects.filter(pk=job.pk).update(**limits)
    return job


def balance(owner) -> int:
    return Account.objects.get(pk=owner.pk).balance


def fresh(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def is_running(job: Job, attempt: int = 1):
    def asked():
        row = fresh(job)
        return row.status == "RUNNING" and row.attempt == attempt

    return asked


def final(*jobs: Job, seconds: float = 30) -> list[Job]:
    """Wait until all of `jobs` have ended; their rows."""
    try:
        until(lambda: all(fresh(job).status in FINAL for job in jobs), seconds=seconds)
    except AssertionError as error:
        states = [(row.status, row.attempt, row.stage, row.error_code) for row in map(fresh, jobs)]
        raise AssertionError(f"not final: {states}") from error
    return [fresh(job) for job in jobs]


def at_rest() -> None:
    """All invariants; what other processes still tidy up after a commit may take a moment."""

    def holds():
        try:
            invariants.check()
        except AssertionError as error:
            return error.args and str(error) and None
        return True

    try:
        until(holds, seconds=30)  # a pool replaces a dead child every 5 s, and the new one sweeps after it
    except AssertionError:
        invariants.check()  # its own words say more


def ffmpegs() -> list[int]:
    """Living FFmpeg processes that have our work folder as theirs."""
    found = []
    for pid in procfs.pids():
        try:
            ours = b"ffmpeg" in command(pid) and str(settings.HOME) in os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        if ours and procfs.started(pid) is not None:
            found.append(pid)
    return found


def freeze(*pids: int) -> None:
    """SIGSTOP, at a moment when none of them holds SQLite's only write lock: all others would stand still, too."""

    def stopped() -> bool:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            with transaction.atomic():
                return True
        except OperationalError:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            return False

    until(stopped, seconds=60)


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP holds a process."""
    return procfs.stat(pid)[:1] == ["T"]


def children_of(pid: int) -> list[int]:
    return [child for child in procfs.pids() if procfs.parent(child) == pid and procfs.started(child)]


def command(pid: int) -> bytes:
    """A process's command line, its words apart by NUL; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def descendants(pid: int) -> set[int]:
    found = set(children_of(pid))
    for child in list(found):
        found |= descendants(child)
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
