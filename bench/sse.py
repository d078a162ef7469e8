"""What watching costs: thousands of idle event streams on one web process, and how late an event comes to them."""

import asyncio
import os
import random
import resource
import time
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models.functions import Now

from bench import Options, Row, percentile
from bench.api import answers
from bench.stage import Stage, wait
from jobs import keys, lifecycle
from jobs.api.hub import TICK
from jobs.models import Job
from tokens import ledger

STREAMS = 2000
AT_ONCE = 20  # that are opened at the same time
EVENTS = 100  # whose way to the viewer is timed
IDLE = 10.0  # seconds in which nothing happens but comments


def measure(stage: Stage, options: Options) -> list[Row]:
    """Each stream watches a queued job of its own; every user has a tenth of the streams that one may have."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    number = 100 if options.quick else STREAMS
    watched = make_jobs(number)
    stage.platform("web")
    wait(lambda: answers("/livez"), stage, "web")
    rows = asyncio.run(watch(stage, watched))
    for job_id, _ in watched:
        if Job.objects.filter(pk=job_id, finished_at=None).exists():
            lifecycle.cancel(job_id, by="bench")
    return rows


@transaction.atomic
def make_jobs(number: int) -> list[tuple]:
    """(job's id, its owner's key) of so many jobs that no worker takes: they are due tomorrow, from the first."""
    made = []
    for index in range(number):
        if index % (settings.JOBSITE["EVENT_STREAMS_PER_USER"] // 10) == 0:
            owner = get_user_model().objects.create_user(f"viewer-{index}")
            ledger.grant(ledger.open_account(owner.pk).pk, 1000, reason="bench")
            secret = keys.issue(owner, "bench")[1]
        job, _ = lifecycle.submit(owner.pk, "NOOP", {})
        made.append((job.pk, secret))
    Job.objects.filter(pk__in=[job_id for job_id, _ in made]).update(run_after=Now() + timedelta(days=1))
    return made


class Reader:
    """One viewer; `seen` is when its job's end came."""

    def __init__(self, job_id, secret: str):
        self.job_id, self.secret = job_id, secret
        self.ready, self.seen = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def read(self) -> None:
        reader, writer = await asyncio.open_connection(settings.HOST, settings.PORT)
        path = f"/api/jobs/{self.job_id}/events/"
        head = f"GET {path} HTTP/1.1\r\nHost: {settings.HOST}\r\nAuthorization: Bearer {self.secret}\r\n\r\n"
        writer.write(head.encode())
        async for line in reader:
            if line.startswith(b"event: job.queued"):
                self.ready.set()
            elif line.startswith(b"event: job.canceled"):
                self.seen.set_result(time.perf_counter())
                break
        writer.close()


async def watch(stage: Stage, watched: list[tuple]) -> list[Row]:
    """Open them all, leave them alone, then cancel some jobs one by one."""
    web = stage._children["web"].pid
    readers = [Reader(*one) for one in watched]
    tasks = []
    gate = asyncio.Semaphore(AT_ONCE)

    async def begin(reader: Reader) -> None:
        async with gate:
            tasks.append(asyncio.create_task(reader.read()))
            await asyncio.wait_for(reader.ready.wait(), 60)

    await asyncio.gather(*map(begin, readers[:AT_ONCE]))  # what the first ones load is no stream's
    before = memory(web)
    began = time.perf_counter()
    await asyncio.gather(*map(begin, readers[AT_ONCE:]))
    opened = (len(readers) - AT_ONCE) / (time.perf_counter() - began)
    each = (memory(web) - before) / (len(readers) - AT_ONCE)
    used = stage.cpu("web")
    await asyncio.sleep(IDLE)
    idle = {name: (now - used[name]) / IDLE * 100 for name, now in stage.cpu("web").items()}
    lags = []
    for reader in readers[:: max(1, len(readers) // EVENTS)]:
        await asyncio.sleep(random.uniform(0, TICK))  # at any time between two looks
        await asyncio.to_thread(lifecycle.cancel, reader.job_id, by="bench")
        done = time.perf_counter()
        lags.append((await asyncio.wait_for(reader.seen, 30) - done) * 1000)
    left = {task for task in tasks if not task.done()}
    for task in left:
        task.cancel()
    return [
        Row(f"memory of an idle event stream, of {len(readers)}", each / 1024, None, "≤ 54", "KiB"),
        Row("  the whole web process", memory(web) / 1024**2, None, "", "MiB"),
        Row("  its threads", len(os.listdir(f"/proc/{web}/task")), None, ""),
        Row("  its CPU while nothing happens", idle["web"], None, "", "% of a core"),
        Row("  streams opened a second", opened, None, "", "/s"),
        Row("an event's way to its viewer, p50", percentile(lags, 50), None, "≤ 500", "ms"),
        Row("an event's way to its viewer, p99", percentile(lags, 99), None, "≤ 1,000", "ms"),
    ]


def memory(pid: int) -> int:
    """Bytes of a process that are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
