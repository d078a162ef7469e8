"""A platform under load whose processes are killed, frozen and ended at random, and which then is right by itself.

    python -m tests.chaos [--minutes 5] [--seed 1]       # on SQLite
    python -m tests.postgres .venv/bin/python -m tests.chaos     # on PostgreSQL, whose connections are cut, too

Four customers submit jobs of all kinds, insist with one idempotency key where no answer comes, cancel, retry, delete
and look; a receiver of webhooks fails now and then. Then nobody touches anything any more: every job ends, the
invariants of tests/invariants.py hold, every submit made one job, every end was told, no answer was a 500, and
TERM leaves no process. Exit code 0 if all of that was so.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from pathlib import Path

import httpx
import psycopg

from jobs import procfs
from tests import media_files
from tests.receiver import Receiver, receiver, status
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[1]
QUIET = 300  # seconds after which nothing may be live any more
TOLD = 900  # seconds after which all is told: a receiver that failed twice in a row is tried again after five minutes
TABLE = "day,shop,sales\n" + "".join(f"2026-01-{n % 28 + 1:02},s{n % 3},{n * 7 % 101}\n" for n in range(500))
REST = """
import os, django, json
os.environ["DJANGO_SETTINGS_MODULE"] = "jobsite.settings"
django.setup()
from jobs.models import FINAL, Delivery, JobEvent
from tests import invariants
invariants.check()
ends = JobEvent.objects.filter(status__in=FINAL).values_list("job_id", "status").distinct()
owed = Delivery.objects.filter(next_at__isnull=False).count()
print(json.dumps([owed, [[str(job), f"job.{status.lower()}"] for job, status in ends]]))
"""


class Platform:
    """`manage.py up` in a home of its own."""

    def __init__(self, home: Path):
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.env = os.environ | {
            "JOBSITE_HOME": str(home),
            "PORT": str(port),
            "JOBSITE_KINDS": "tests.kitchen",
            "JOBS_PER_USER": "60",
            "JOB_BACKOFF_INITIAL": "1",
            "JOB_BACKOFF_MAX": "5",
            "WEBHOOK_NETWORKS": "127.0.0.0/8",
        }

    def start(self) -> None:
        with open(self.home / "up.log", "ab") as log:
            command = [sys.executable, "manage.py", "up"]
            self.main = subprocess.Popen(
                command, cwd=ROOT, env=self.env, stdout=log, stderr=log, start_new_session=True
            )

    def healthy(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health", timeout=10).status_code == 200
        return False

    def python(self, *arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(done.stderr[-2000:])
        return done.stdout.strip()

    def processes(self) -> dict[int, str]:
        """pid → name of every process of the platform's but the supervisor."""
        found = {}
        for pid in procfs.pids():
            with contextlib.suppress(OSError):
                environment = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
                if f"JOBSITE_HOME={self.home}" in environment and pid != self.main.pid:
                    named = (line.partition("=")[2] for line in environment if line.startswith("JOBSITE_PROCESS="))
                    found[pid] = next(named, "broker")
        return found


class Customers:
    """What all of them know: the key, what they submitted, and what they were answered."""

    def __init__(self, platform: Platform):
        key = platform.python("manage.py", "api_key", "ann", "--create", "--tokens", "100000")
        self.http = httpx.Client(base_url=platform.url, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        self.over = threading.Event()
        self.jobs: dict[str, set[str]] = {}  # by idempotency key
        self.films: list[str] = []
        self.answers: Counter[tuple[str, int]] = Counter()
        self.wrong: list[str] = []
        picture, clip = media_files.picture(), media_files.clip()
        self.picture, self.clip, self.table = map(
            self.bring, [picture, clip, TABLE.encode()], ["p.png", "c.mp4", "t.csv"]
        )

    def bring(self, content: bytes, name: str) -> str:
        return self.http.post("/api/uploads/", files={"file": (name, content)}).raise_for_status().json()["reference"]

    def ask(self, method: str, path: str, **options) -> httpx.Response | None:
        """None if there was no answer."""
        try:
            answer = self.http.request(method, path, **options)
        except httpx.HTTPError:
            return None
        self.answers[method, answer.status_code] += 1
        if answer.status_code >= 500 and answer.status_code not in (503, 507):
            self.wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer

    def order(self, r: random.Random) -> dict:
        """A submit's body."""
        kind = r.choices(["KITCHEN", "RENDER", "STITCH", "ENHANCE", "INGEST", "ANALYZE"], [6, 3, 1, 1, 1, 1])[0]
        if kind == "STITCH" and len(self.films) < 3:
            kind = "RENDER"
        dish = {
            "seconds": r.choice([0, 0.2, 1, 4]),
            "fail_times": r.choice([0, 0, 0, 1, 2, 5]),
            "price": r.randint(0, 9),
        }
        if r.random() < 0.03:
            dish |= {"seconds": 30, "stall": True}
        params = {
            "KITCHEN": lambda: dish | {"stubborn": r.random() < 0.03, "bytes": r.choice([0, 100_000])},
            "RENDER": lambda: {"prompt": "a storm", "seconds": r.randint(1, 3), "fps": 12, "width": 160, "height": 90},
            "STITCH": lambda: {"clips": [f"job:{film}" for film in r.sample(self.films, 3)]},
            "ENHANCE": lambda: {"image": self.picture, "tier": "1K"},
            "INGEST": lambda: {"source_type": "upload", "upload": self.clip},
            "ANALYZE": lambda: {"file": self.table},
        }
        return {"kind": kind, "params": params[kind]()}

    def one(self, seed: int) -> None:
        """One customer, until all is over."""
        r, mine = random.Random(seed), []
        while not self.over.wait(r.uniform(0.05, 1)):
            act = r.random()
            if act < 0.5:
                mine += self.submit(r)
            elif not mine:
                continue
            elif act < 0.65:
                self.ask("POST", f"/api/jobs/{r.choice(mine[-15:])}/cancel/")
            elif act < 0.75:
                key = {"Idempotency-Key": str(uuid.uuid4())}
                self.ask("POST", f"/api/jobs/{r.choice(mine[-15:])}/retry/", headers=key)
            elif act < 0.78:
                self.ask("DELETE", f"/api/jobs/{r.choice(mine[-15:])}/")
            elif answer := self.ask("GET", f"/api/jobs/{r.choice(mine[-15:])}/"):
                told = answer.json()
                if told.get("kind") == "RENDER" and told["status"] == "SUCCEEDED" and told["id"] not in self.films:
                    self.films.append(told["id"])

    def submit(self, r: random.Random) -> list[str]:
        """Ask until there is an answer that decides, always with the same key."""
        key, order = str(uuid.uuid4()), self.order(r)
        for _ in range(20):
            answer = self.ask("POST", "/api/jobs/", json=order, headers={"Idempotency-Key": key})
            if answer is not None and answer.status_code in (200, 202):
                self.jobs.setdefault(key, set()).add(answer.json()["id"])
                if r.random() > 0.1:  # else once more, though it came
                    break
            elif answer is not None and answer.status_code not in (429, 503, 507):
                if answer.json()["code"] != "input_not_found":  # a film that was deleted meanwhile
                    self.wrong.append(f"submit of {order}: {answer.text[:300]}")
                break
            if self.over.wait(r.uniform(0.2, 2)):
                break
        return list(self.jobs.get(key, ()))

    def live(self) -> int | None:
        """How many jobs have not ended; None if the platform does not say."""
        found = [self.ask("GET", "/api/jobs/", params={"status": status}) for status in ("QUEUED", "RUNNING", "RETRY")]
        known = [answer for answer in found if answer is not None and answer.status_code == 200]
        return sum(len(answer.json()["results"]) for answer in known) if len(known) == len(found) else None


def wreck(platform: Platform, r: random.Random, seconds: float) -> Counter[str]:
    """Do harm for so long; what was done, by name."""
    done: Counter[str] = Counter()
    over = time.monotonic() + seconds
    while time.monotonic() < over:
        time.sleep(r.uniform(2, 12))
        database = os.environ.get("DATABASE_URL", "")
        if database.startswith("postgres") and r.random() < 0.2:
            with psycopg.connect(database, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.5"
                )
            done["connections cut"] += 1
        elif r.random() < 0.04:
            platform.main.kill()
            platform.main.wait()
            platform.start()
            done["kill supervisor"] += 1
        elif victims := platform.processes():
            pid = r.choice(list(victims))
            deed, number = r.choices(
                [("freeze", signal.SIGSTOP), ("end", signal.SIGTERM), ("kill", signal.SIGKILL)], [6, 2, 12]
            )[0]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                done[f"{deed} {victims[pid]}"] += 1
            if deed == "freeze":
                threading.Timer(r.uniform(1, 25), thaw, [pid]).start()
    return done


def thaw(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def rests(platform: Platform, hooks: Receiver) -> None:
    """All that must be true of a platform that was left alone."""
    told: set[tuple[str, str]] = set()

    def all_told() -> bool:
        owed, ends = json.loads(platform.python("-c", REST))
        told.update((message["data"]["id"], message["type"]) for message in (json.loads(body) for _, body in hooks.got))
        return owed == 0 and {(job, kind) for job, kind in ends} <= told

    until(all_told, seconds=TOLD, every=5)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    r = random.Random(options.seed)
    home = Path(tempfile.mkdtemp(prefix="jb-"))
    platform = Platform(home)
    platform.start()
    try:
        until(platform.healthy, seconds=120)
        customers = Customers(platform)
        with receiver() as hooks:
            moody = [status(204)] * 8 + [status(500)] * 2
            hooks.says = lambda request: random.choice(moody)(request)
            customers.http.post("/api/webhooks/", json={"url": hooks.url}).raise_for_status()
            people = [threading.Thread(target=customers.one, args=[r.random()]) for _ in range(4)]
            for person in people:
                person.start()
            print("done to it:", dict(wreck(platform, r, options.minutes * 60)), flush=True)
            customers.over.set()
            hooks.says = status(204)
            for person in people:
                person.join()
            print(
                "answers:",
                {f"{method} {code}": n for (method, code), n in sorted(customers.answers.items())},
                flush=True,
            )
            began = time.monotonic()
            until(lambda: customers.live() == 0 and platform.healthy(), seconds=QUIET, every=1)
            print(f"at rest after {time.monotonic() - began:.0f} s", flush=True)
            rests(platform, hooks)
        assert not customers.wrong, customers.wrong
        assert all(len(jobs) == 1 for jobs in customers.jobs.values()), customers.jobs
        platform.main.terminate()
        assert platform.main.wait(60) == 0
        until(lambda: not platform.processes(), seconds=10)
        print(f"{len(customers.jobs)} submits, and all is right", flush=True)
    except BaseException:
        platform.main.kill()
        print(f"Look at {home}", file=sys.stderr)
        raise
    shutil.rmtree(home)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
