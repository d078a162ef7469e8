"""A worker that needs no broker: it asks the database for work and runs it with the same runner as all others.

Each slot is a process of its own, forked, so that one that dies hurts no other.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable

from django.core.management import BaseCommand, CommandError
from django.db import connection, connections
from django.utils import timezone

from jobs import cleanup, health, kinds, lifecycle, runner, slots
from jobs.heartbeat import heart
from jobs.kinds.base import REGISTRY
from jobs.lifecycle import Lease
from jobs.models import Job, Status
from jobsite.logs import redact

log = logging.getLogger(__name__)
LOOK = 0.2  # seconds between two looks whether an idle slot is to end


class Command(BaseCommand):
    help = "Run due jobs without a broker: once or in a loop. Also releases stale jobs and shows running ones."

    def add_arguments(self, parser):
        parser.add_argument("--once", action="store_true", help="one batch, then end")
        parser.add_argument("--limit", type=int, default=10, help="jobs that --once runs at most (default 10)")
        parser.add_argument("--concurrency", type=int, default=1, help="jobs at the same time (default 1)")
        parser.add_argument("--poll-interval", type=float, default=5.0, help="seconds between two looks (default 5)")
        parser.add_argument("--queues", default="", help="comma separated; default: all that a kind has")
        parser.add_argument(
            "--release-stale", action="store_true", help="give up attempts without a heartbeat, and end"
        )
        parser.add_argument("--show-running", action="store_true", help="list running jobs, and end")

    def handle(self, *, once, limit, concurrency, poll_interval, queues, release_stale, show_running, **options):
        if min(limit, concurrency) < 1 or not poll_interval > 0:  # NaN is neither above nor below
            raise CommandError("--limit, --concurrency and --poll-interval must be above 0.")
        known = kinds.queues()
        served = [queue for queue in queues.split(",") if queue] or known
        if unknown := sorted(set(served) - set(known)):
            raise CommandError(f"There is no queue {', '.join(unknown)}; there are {', '.join(known)}.")
        if release_stale:
            self.stdout.write(f"Released {len(cleanup.release_stale().settled)} stale jobs")
        elif show_running:
            self.show_running()
        else:
            self.work(served, once=once, limit=limit, concurrency=concurrency, poll=poll_interval)

    def show_running(self) -> None:
        jobs = list(Job.objects.filter(status=Status.RUNNING).order_by("started_at"))
        self.stdout.write(f"Running jobs: {len(jobs)}")
        now = timezone.now()
        for job in jobs:
            ran, age = (now - job.started_at).total_seconds(), (now - job.heartbeat_at).total_seconds()
            self.stdout.write(
                f"  {short(job.pk)}: stage={job.stage} progress={job.progress:.0%} running={max(0, ran):.0f}s"
                f" heartbeat_age={max(0, age):.0f}s"
            )

    # --- the parent: forks and waits, and keeps no connection and no thread of its own ------------------------------

    def work(self, queues: list[str], *, once: bool, limit: int, concurrency: int, poll: float) -> None:
        known = connection.settings_dict
        place = known["NAME"] if connection.vendor == "sqlite" else f"{known['HOST']}/{known['NAME']}"
        self.say("Jobsite Worker Starting")
        self.say(f"Database: {connection.vendor}://{redact(str(place))}")
        self.say(f"Worker ID: {socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}")
        self.say(f"Pipeline initialized with {len(REGISTRY)} kinds: {', '.join(sorted(REGISTRY))}")
        self.say(f"Media walls: {health.walls().detail}")
        runner.sweep_work_folders()
        self.say("Worker ready - starting poll loop")
        tickets, more = os.pipe()  # one byte a job that may still be run; only counted with --once
        os.set_blocking(tickets, False)
        os.write(more, b"." * min(limit, 10_000))
        results, told = os.pipe()  # one byte a job that was run
        children: set[int] = set()
        stopping = threading.Event()

        def end(*_):
            stopping.set()
            for pid in list(children):
                with contextlib.suppress(ProcessLookupError):  # it has ended, and is only not struck off yet
                    os.kill(pid, signal.SIGTERM)

        def slot() -> None:
            self.slot(queues, tickets=tickets if once else None, give_back=more, told=told, poll=poll)

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        for _ in range(concurrency):
            children.add(self.fork(slot))
        while children:
            pid, _ = os.wait()
            children.remove(pid)
            if not once and not stopping.wait(1.0):  # it died: another takes its place
                children.add(self.fork(slot))
        os.close(told)
        with open(results, "rb") as outcomes:
            ended = outcomes.read()
        self.say(f"Jobs processed: {len(ended)}")
        self.say(f"Jobs succeeded: {ended.count(b'S')}")
        self.say(f"Jobs failed: {len(ended) - ended.count(b'S')}")

    def fork(self, run: Callable[[], None]) -> int:
        """Start `run` in a process of its own. Returns its pid."""
        connections.close_all()  # none is shared
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            run()
            code = 0
        except Exception:
            log.exception("A slot of the worker failed")
        finally:
            logging.shutdown()
            os._exit(code)  # the parent's clean-up is not ours

    # --- a slot: one process, one job at a time ---------------------------------------------------------------------

    def slot(self, queues: list[str], *, tickets: int | None, give_back: int, told: int, poll: float) -> None:
        """Run due jobs until told to end; with `tickets`, until there are none or nothing is due."""
        signal.signal(signal.SIGTERM, heart.terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent passes TERM on
        slots.adopt_orphans()
        heart.slot = slots.register(queues)
        heart.start(queues, nudged=False)
        while not heart.stopping and (tickets is None or _ticket(tickets)):
            lease = next(filter(None, map(runner.claim, queues)), None)
            if lease is not None:
                os.write(told, self.one(lease))
            elif tickets is not None:
                os.write(give_back, b".")
                break
            else:
                until = time.monotonic() + poll
                while not heart.stopping and time.monotonic() < until:
                    time.sleep(min(LOOK, poll))
        heart.stop()

    def one(self, lease: Lease) -> bytes:
        """Run one claimed job and tell it. Returns S if it succeeded, F if it did not."""
        source = f"{lease.params['source_type']}:{_source(lease.params)}" if lease.kind == "INGEST" else lease.kind
        self.say(f"Processing job {short(lease.job_id)} (attempt {lease.failures + 1}/{lease.max_attempts}): {source}")
        began = time.monotonic()
        runner.run(lease)
        status = lifecycle.outcome(lease)
        if status == Status.SUCCEEDED:
            ad = f": ad_id={lease.job_id}" if lease.kind == "INGEST" else ""
            self.say(f"Job {short(lease.job_id)} succeeded in {time.monotonic() - began:.1f}s{ad}")
            return b"S"
        self.say(f"Job {short(lease.job_id)} did not succeed: {status or 'it was taken away'}")
        return b"F"

    def say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def short(job_id: uuid.UUID) -> str:
    """An id as the worker's lines show it."""
    return f"{str(job_id)[:8]}..."


def _ticket(tickets: int) -> bool:
    try:
        return bool(os.read(tickets, 1))
    except BlockingIOError:
        return False


def _source(params: dict) -> str:
    return params.get("s3_key") or params.get("path") or params.get("upload") or ""
