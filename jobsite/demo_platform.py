"""The demo's own platform: a new home, a free port, none of your settings; ended and removed when the demo is."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from django.conf import settings

from jobs import procfs

from .settings import runtime_folder
from .supervisor import hold_port, tether

KEPT = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "FFMPEG"]
START_WITHIN, END_WITHIN = 180.0, 30.0  # seconds
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failed(Exception):
    """Something that the demo promises was not true; the text says what in one sentence."""


@dataclass(frozen=True)
class Child:
    """A process, told by its start from a later one with the same pid."""

    pid: int
    started: int  # clock ticks after boot

    def lives(self) -> bool:
        return procfs.started(self.pid) == self.started


class Platform:
    """`manage.py up` with the home `home`, listening on `url`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.home = Path(tempfile.mkdtemp(prefix="platform-", dir=folder))
        self.held = hold_port()
        port = self.held.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.env = {name: os.environ[name] for name in KEPT if name in os.environ} | {
            "JOBSITE_HOME": str(self.home),
            "PORT": str(port),
            "ENV_FILE": os.devnull,  # a .env is about the platform that you run for real
            "JOB_HEARTBEAT_SECONDS": "0.25",  # progress rides on the heartbeat, and bars should move
            "JOB_WATCH_SECONDS": "0.25",
        }
        self.said = self.home / "up.log"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Called from the main thread: the kernel ends the platform with it, even if the demo is killed with -9."""
        with open(self.said, "wb") as log:
            self.process = subprocess.Popen(
                [*tether(), sys.executable, "manage.py", "up"],
                cwd=settings.BASE_DIR,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the demo alone, which then ends the platform
            )

    def wait_until_healthy(self) -> float:
        """How many seconds it took until /health answered 200. Failed with what is missing, or its last words."""
        began, wanting = time.monotonic(), "nothing answers"
        while time.monotonic() - began < START_WITHIN:
            if self.process.poll() is not None:
                raise Failed(f"The platform ended with code {self.process.returncode}: {self.last_words()}")
            with suppress(httpx.TransportError, ValueError):
                answer = httpx.get(f"{self.url}/health", timeout=5, trust_env=False)
                if answer.status_code == 200:
                    return time.monotonic() - began
                wanting = ", ".join(check["code"] for check in answer.json()["checks"] if not check["ok"])
            time.sleep(0.2)
        raise Failed(f"The platform is not healthy after {START_WITHIN:.0f} s: {wanting}.")

    def last_words(self) -> str:
        lines = self.said.read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it said nothing.")

    def manage(self, *words: str) -> str:
        """What a management command prints, run on this platform's home."""
        command = [sys.executable, "manage.py", *words]
        done = subprocess.run(command, cwd=settings.BASE_DIR, env=self.env, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise Failed(f"manage.py {words[0]} failed: {done.stderr.strip().rpartition(chr(10))[2]}")
        return done.stdout.strip()

    def ffmpeg_of(self, job_id: str) -> Child | None:
        """The living FFmpeg of a job: its work folder is named after the job."""
        for pid, folder, words in self._processes():
            if "ffmpeg" in words and job_id in folder and (started := procfs.started(pid)) is not None:
                return Child(pid, started)
        return None

    def left(self) -> list[int]:
        """The pids of living processes that have this home in their environment or work in it."""
        return [pid for pid, _, _ in self._processes()]

    def _processes(self) -> Iterator[tuple[int, str, str]]:
        """(pid, working folder, command line) of all processes of this platform. Linux has them in /proc."""
        for entry in (Path(f"/proc/{pid}") for pid in procfs.pids()):
            with suppress(OSError):
                folder, words = os.readlink(entry / "cwd"), (entry / "cmdline").read_text(errors="replace")
                inside = f"{folder}/".startswith(f"{self.home}/")
                if inside or f"JOBSITE_HOME={self.home}\0" in (entry / "environ").read_text(errors="replace"):
                    yield int(entry.name), folder, words

    def stop(self) -> None:
        """TERM, and wait. Failed unless it ends with code 0 and none of its processes is left; those are killed."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        until = time.monotonic() + 2.0  # what was killed at the end of the grace takes a moment to go
        while (left := self.left()) and time.monotonic() < until:
            time.sleep(0.05)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process = None
        if left or code:
            raise Failed(f"The platform ended with code {code} and left {len(left)} processes, which were killed.")

    def remove(self, *, keep_logs: bool) -> None:
        """Delete its home; the logs stay in the demo's folder if they are to tell something."""
        self.held.close()
        logs = self.folder / "log"
        shutil.rmtree(logs, ignore_errors=True)
        if keep_logs:
            with suppress(OSError):
                shutil.copytree(self.home / "log", logs)
                shutil.copy(self.said, logs)
        shutil.rmtree(runtime_folder(self.home), ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)


@contextmanager
def started(folder: Path) -> Iterator[Platform]:
    """A platform that starts; ended and removed whatever happens, also on Ctrl-C and TERM, which become Failed."""

    def interrupted(number, _):
        raise Failed(f"Stopped by {signal.Signals(number).name}; the platform was ended.")

    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores HUP
    handlers = {number: signal.signal(number, interrupted) for number in heard}
    platform = Platform(folder)
    try:
        platform.start()
        yield platform
    except BaseException as wrong:
        with _undisturbed():
            with suppress(Failed):
                platform.stop()
            platform.remove(keep_logs=True)
        if isinstance(wrong, Failed):
            raise Failed(f"{wrong} (Its logs: {folder / 'log'})") from wrong
        raise
    else:
        with _undisturbed():
            platform.stop()
            platform.remove(keep_logs=False)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not keep the platform from being ended."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    yield
