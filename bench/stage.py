"""A bench's real processes: one PostgreSQL and one broker, Jobsite's and the peer's workers, a producer for each."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import psycopg
from django.conf import settings
from django.contrib.auth import get_user_model

from jobs import procfs
from jobs.models import Slot
from jobsite import supervisor
from tokens import ledger

TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds


class Stage:
    """Starts each process when it is first asked for; `close` ends them all."""

    def __init__(self, postgres_pid: int):
        self._children: dict[str, subprocess.Popen] = {}
        self._clients: dict[str, Client] = {}
        self._postgres = postgres_pid
        self.database = psycopg.connect(autocommit=True, **database())
        self.owner = get_user_model().objects.create_user("bench")
        ledger.grant(ledger.open_account(self.owner.pk).pk, 10**9, reason="bench")

    # --- processes ------------------------------------------------------------------------------------------------

    def start(self, name: str, command: list[str], **pipes) -> subprocess.Popen:
        """Start a process under `name`; what it says goes to `<name>.out` in the home's log folder."""
        with open(settings.LOG_DIR / f"{name}.out", "ab") as log:
            self._children[name] = subprocess.Popen(
                [*supervisor.tether(), *command],
                cwd=settings.BASE_DIR,
                env=os.environ | {"JOBSITE_PROCESS": name, "PYTHONWARNINGS": supervisor.QUIET},
                start_new_session=True,
                **{"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log} | pipes,
            )
        return self._children[name]

    def platform(self, name: str) -> None:
        """Start one of Jobsite's own processes with the very command that `manage.py up` uses, once."""
        if name not in self._children:
            if name != "broker":
                self.platform("broker")
            self.start(name, next(process.command for process in supervisor.processes() if process.name == name))

    def broker(self) -> None:
        self.platform("broker")
        wait(settings.BROKER_SOCKET.exists, self, "broker")

    def worker(self) -> None:
        """Jobsite's worker with two slots, ready."""
        self.broker()
        self.platform("worker")
        wait(lambda: Slot.objects.filter(parent_pid=self._children["worker"].pid).count() >= 2, self, "worker")

    def peer(self) -> None:
        """The peer's worker with two slots; it is ready when its first result comes."""
        self.broker()
        if "peer" not in self._children:
            django = [sys.executable, "-m", "django", "migrate", "--settings", "bench.peer_settings", "-v", "0"]
            subprocess.run(django, cwd=settings.BASE_DIR, check=True)
            celery = [sys.executable, "-m", "celery", "-A", "bench.peer", "--quiet", "worker", "-P", "prefork"]
            self.start("peer", [*celery, "--without-gossip", "--without-mingle", "-c", "2", "-n", "peer@%h"])

    def client(self, module: str) -> "Client":
        """A process of its own that submits for one side (`bench.ours`, `bench.theirs`), once its first job is done."""
        name = module.rpartition(".")[2]
        if name not in self._clients:
            command = [sys.executable, "-m", module, str(self.owner.pk)]
            child = self.start(name, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._clients[name] = Client(child)
            self._clients[name].answer()
        return self._clients[name]

    def log(self, name: str) -> str:
        return (settings.LOG_DIR / f"{name}.out").read_text(errors="replace")

    def close(self) -> None:
        self.database.close()
        for name in reversed(self._children):  # the broker last
            self._children[name].kill()
            self._children[name].wait()
            supervisor.kill_group(self._children[name].pid)

    # --- what they cost -------------------------------------------------------------------------------------------

    def cpu(self, *names: str) -> dict[str, float]:
        """CPU seconds that each process and all its children have used so far; PostgreSQL's beside them."""
        parents = {pid: procfs.parent(pid) for pid in procfs.pids()}
        trees = {name: self._children[name].pid for name in names} | {"postgres": self._postgres}
        return {name: _tree(pid, parents) for name, pid in trees.items()}


class Client:
    """A submitting process: one question a line, one number back."""

    def __init__(self, process: subprocess.Popen):
        self._process = process

    def ask(self, *words: object) -> float:
        """Send one command and wait for its answer. RuntimeError if the process has ended."""
        self.send(*words)
        return self.answer()

    def send(self, *words: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def answer(self) -> float:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with {self._process.wait()}")
        return float(line)


def database() -> dict[str, str]:
    """The database as psycopg's keyword arguments."""
    known = settings.DATABASES["default"]
    return {"host": known["HOST"], "user": known["USER"], "dbname": known["NAME"]}


def wait(condition: Callable[[], object], stage: Stage, name: str, seconds: float = 60.0) -> None:
    """Wait until `condition` holds. TimeoutError with the last words of the process `name` if it does not."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"{name} is not ready:\n{stage.log(name)[-2000:]}")
        time.sleep(0.02)


def _tree(pid: int, parents: dict[int, int | None]) -> float:
    """CPU seconds of a process, the children it has reaped, and those that live."""
    used = sum(map(int, procfs.stat(pid)[11:15])) * TICK
    return used + sum(_tree(child, parents) for child, parent in parents.items() if parent == pid)
