"""`manage.py up` for real: every process killed in turn, the supervisor killed, the platform ended."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from jobs import procfs
from jobsite.settings import runtime_folder
from jobsite.supervisor import hold_port
from tests.faults.rig import database_url
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)  # whole platforms start, up to three times
NAMES = ["broker", "web", "worker", "upkeep", "beat"]


def children(pids: Iterable[int]) -> set[int]:
    """The processes that these have started, whatever name they run under (a job's FFmpeg has no environment)."""
    parents = set(pids)
    return {pid for pid in procfs.pids() if procfs.parent(pid) in parents}


class Up:
    """A platform under its supervisor, in a home of its own. On PostgreSQL it may share the test's database."""

    def __init__(self, home: Path, *, shares_database: bool = False):
        self.home, self.held = home, hold_port()
        self.port = self.held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.tag = runtime_folder(home).name
        self.log = home.parent / f"{self.tag}.log"
        kept = {name: value for name, value in os.environ.items() if name not in ("CELERY_BROKER_URL", "DATABASE_URL")}
        self.env = {**kept, "JOBSITE_HOME": str(home), "PORT": str(self.port), "WORKER_SLOTS": "1"}
        if shares_database and connection.vendor == "postgresql":
            self.env["DATABASE_URL"] = database_url()
        self.supervisor: subprocess.Popen | None = None

    def start(self) -> "Up":
        with open(self.log, "wb") as log:
            command = [sys.executable, "manage.py", "up"]
            self.supervisor = subprocess.Popen(command, cwd=settings.BASE_DIR, env=self.env, stdout=log, stderr=log)
        return self

    def said(self) -> str:
        return self.log.read_text()

    def health(self) -> int:
        """The status of /health; 0 if nobody answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code
        except OSError:
            return 0

    def healthy(self, seconds: float = 30) -> None:
        try:
            until(lambda: self.health() == 200, seconds=seconds, every=0.2)
        except AssertionError:
            raise AssertionError(f"/health is {self.health()} after {seconds} s:\n{self.said()[-3000:]}") from None

    def pids(self) -> dict[str, set[int]]:
        """All live processes of this platform, by name; a worker's pool children count under its name."""
        found: dict[str, set[int]] = {}
        for pid in procfs.pids():
            folder = Path(f"/proc/{pid}")
            try:
                words = (folder / "cmdline").read_text(errors="replace")
                environment = (folder / "environ").read_text(errors="replace").split("\0")
            except OSError:
                continue  # it ended meanwhile
            if words and (f"JOBSITE_HOME={self.home}" in environment or self.tag in words):
                name = next((line[16:] for line in environment if line.startswith("JOBSITE_PROCESS=")), "")
                name = "broker" if "valkey" in words else name or "supervisor"
                found.setdefault(name, set()).add(pid)
        return found

    def main_pid(self, name: str) -> int | None:
        """The process of that name that the supervisor started."""
        return next(iter(self.pids().get(name, set()) & children([self.supervisor.pid])), None)

    def render(self) -> None:
        """Submit a film that takes FFmpeg a good while."""
        command = [sys.executable, "manage.py", "api_key", "ann", "--create", "--tokens", "100"]
        key = subprocess.run(command, cwd=settings.BASE_DIR, env=self.env, capture_output=True, check=True, text=True)
        params = {"prompt": "a long film", "seconds": 60, "width": 1920, "height": 1080, "fps": 60}
        headers = {"Authorization": f"Bearer {key.stdout.strip()}", "Content-Type": "application/json"}
        body = json.dumps({"kind": "RENDER", "params": params}).encode()
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/api/jobs/", body, headers), timeout=10
        ) as answer:
            assert answer.status == 202

    def close(self) -> None:
        if self.supervisor:
            self.supervisor.kill()
            self.supervisor.wait()
        self.held.close()
        until(lambda: not self.pids(), seconds=20)


@pytest.fixture
def up(tmp_path):
    """Makes platforms; none is left at the end."""
    made = []

    def make(home: str = "home", **options) -> Up:
        made.append(Up(tmp_path / home, **options))
        return made[-1]

    yield make
    for platform in made:
        platform.close()


def test_each_process_comes_back_and_term_ends_all(up):
    platform = up(shares_database=True).start()
    platform.healthy(60)
    until(lambda: "Jobsite is up at" in platform.said(), seconds=30)

    second = subprocess.run(
        [sys.executable, "manage.py", "up"], cwd=settings.BASE_DIR, env=platform.env, capture_output=True, text=True
    )
    assert second.returncode == 1
    assert re.fullmatch(r"[^\n]*already runs on [^\n]*\n", second.stderr)

    for name in NAMES:
        before = until(lambda name=name: platform.main_pid(name), seconds=20)
        os.kill(before, signal.SIGKILL)
        until(lambda name=name, before=before: platform.main_pid(name) not in (None, before), seconds=60)
        platform.healthy(60)

    platform.supervisor.terminate()
    assert platform.supervisor.wait(60) == 0
    until(lambda: not platform.pids(), seconds=20)


def test_the_first_start_tells_a_password_and_a_curl_line_that_works(up):
    platform = up(shares_database=True).start()
    platform.healthy(60)
    said = until(lambda: "}}'" in platform.said() and platform.said())
    assert re.search(r"password \S{12,}", said)
    words = shlex.split(said[said.index("curl") : said.index("}}'") + 3])
    headers = dict(word.split(": ") for option, word in pairwise(words) if option == "-H")
    body = words[words.index("-d") + 1].encode()
    with urllib.request.urlopen(urllib.request.Request(words[2], body, headers), timeout=10) as response:
        answer = json.load(response)
    assert (response.status, answer["kind"]) == (202, "RENDER")

    platform.supervisor.send_signal(signal.SIGINT)
    assert platform.supervisor.wait(60) == 0
    platform.start().healthy(60)
    until(lambda: "Jobsite is up at" in platform.said(), seconds=30)
    assert "password" not in platform.said()


def test_two_side_by_side_and_kill_minus_9_of_one_supervisor_leaves_nothing_of_it(up, tmp_path):
    deep = up("h" * (150 - len(str(tmp_path)) - 1)).start()
    other = up("other").start()
    assert len(str(deep.home)) == 150
    deep.healthy(60)
    other.healthy(60)
    deep.render()
    ffmpeg = until(lambda: children(deep.pids().get("worker", ())) - deep.pids()["worker"], seconds=20)
    until(lambda: len(deep.pids()["worker"]) == 2, seconds=20)  # its pool child too

    deep.supervisor.kill()
    deep.supervisor.wait()
    until(lambda: not deep.pids(), seconds=20)
    until(lambda: not any(map(procfs.started, ffmpeg)))
    other.healthy()
    deep.start().healthy(60)


def test_a_port_that_is_taken_is_one_sentence(up):
    platform = up()
    with socket.create_server(("127.0.0.1", platform.port)):
        assert platform.start().supervisor.wait(60) == 1
    assert platform.said().splitlines()[-1].endswith("set HOST or PORT.")


def test_a_first_start_that_is_ended_early_has_told_the_password_of_the_admin_that_it_leaves(up):
    platform = up().start()
    until(lambda: (platform.home / "broker").exists(), seconds=60)  # the first child is being started
    platform.supervisor.terminate()
    assert platform.supervisor.wait(20) == 0
    assert re.search(r"password \S{12,}", platform.said())


def test_a_platform_behind_a_proxy_that_ends_tls_says_that_it_is_up(up):
    platform = up()
    platform.env |= {"SITE_URL": f"https://localhost:{platform.port}", "TRUST_PROXY": "true", "SSL_REDIRECT": "true"}
    platform.start()
    until(lambda: "Jobsite is up at https://localhost" in platform.said(), seconds=60)


def test_a_user_called_admin_who_came_before_the_first_start_does_not_keep_it_from_starting(up):
    platform = up()
    for command in (["migrate", "-v0"], ["user", "add", "admin", "--role", "admin"]):
        subprocess.run([sys.executable, "manage.py", *command], cwd=settings.BASE_DIR, env=platform.env, check=True)
    platform.start().healthy(60)
    assert "the name admin is taken" in platform.said()


def test_a_host_that_nobody_knows_is_one_sentence(up):
    platform = up()
    platform.env["HOST"] = "nowhere.invalid"
    assert platform.start().supervisor.wait(60) == 1
    assert re.fullmatch(r".*Cannot listen on nowhere.invalid port \d+ \(.*\); set HOST or PORT\.\n", platform.said())
