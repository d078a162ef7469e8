"""Python processes at a quarter of their price: they fork from one that has imported the libraries.

What is ours is imported by the child, under its own environment, so it is the process that `python -m …` would be; only
/proc shows the command line and the environment of the one that it came from. One zygote for each pytest process.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path

LIBRARIES = [
    "asyncio",
    "av",
    "billiard.pool",
    "celery",
    "celery.app.base",
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.worker.worker",
    "corsheaders",
    "django",
    "django.contrib.postgres.fields",
    "django.core.management",
    "django.db.backends.postgresql.base",
    "django.db.backends.sqlite3.base",
    "django.db.models",
    "django.db.models.functions",
    "django.forms",
    "django.http",
    "django.template",
    "django.urls",
    "environ",
    "httpx",
    "kombu.transport.redis",
    "prometheus_client",
    "psycopg",
    "redis",
    "requests",
    "rest_framework.compat",
    "standardwebhooks",
    "structlog",
    "tenacity",
    "uuid_utils",
    "uvicorn",
    "yaml",
]
PR_SET_PDEATHSIG = 1


# --- in the tests' process -----------------------------------------------------------------------------------------


class Forked:
    """A child as `subprocess.Popen` would show it, as far as tests ask."""

    def __init__(self, zygote: "Zygote", pid: int):
        self.zygote, self.pid = zygote, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.zygote.ask(ended=self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = self.zygote.ask(ended=self.pid, within=timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(f"pid {self.pid}", timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Zygote:
    """The process that the others fork from; it ends with the one that started it."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            command = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", __name__, str(theirs.fileno())]
            root = Path(__file__).parents[2]
            self.process = subprocess.Popen(command, cwd=root, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self.stream = self.socket.makefile("rw")
        self.lock = threading.Lock()

    def ask(self, **words):
        with self.lock:
            print(json.dumps(words), file=self.stream, flush=True)
            return json.loads(self.stream.readline())

    def start(self, argv: list[str], *, cwd: Path, env: dict[str, str], log: Path) -> Forked:
        """Run `-m module …` or `script.py …` in a session of its own, its output at the end of `log`."""
        return Forked(self, self.ask(start=argv, cwd=str(cwd), env=env, log=str(log)))


# --- in the zygote -------------------------------------------------------------------------------------------------


def serve(ears: socket.socket) -> None:
    """Fork what is asked for and say how it ended, until nobody asks any more."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    stream = ears.makefile("rw")
    pidfds: dict[int, int] = {}
    ended: dict[int, int] = {}

    def reap(*_) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                ended[found[0]] = os.waitstatus_to_exitcode(found[1])

    signal.signal(signal.SIGCHLD, reap)
    while line := stream.readline():
        asked = json.loads(line)
        if "start" in asked:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # not reaped before its pidfd is there
            pid = os.fork()
            if not pid:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
                stream.close()
                ears.close()
                for number in pidfds.values():
                    os.close(number)
                _become(asked)
            pidfds[pid] = os.pidfd_open(pid)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            answer = pid
        else:
            pid = asked["ended"]
            if pid not in ended:
                within = asked.get("within", 0.0)
                select.select([pidfds[pid]], [], [], within)  # goes on by itself after SIGCHLD
                reap()
            answer = ended.get(pid)
        print(json.dumps(answer), file=stream, flush=True)


def _become(asked: dict) -> None:
    """In the child: be the process that was asked for. Does not return."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.chdir(asked["cwd"])
    with open(asked["log"], "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.path[0] = asked["cwd"]
    first, *rest = asked["start"]
    code: object = 0
    try:
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = asked["start"]
            runpy.run_path(first, run_name="__main__")
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
