"""From a user's cancel until the render's FFmpeg is gone, at varied moments of the worker's half-second look."""

import os
import random
import time
from pathlib import Path

from django.conf import settings

from bench import Options, Row, percentile
from bench.stage import Stage, wait
from jobs import lifecycle, procfs

LONG = {"prompt": "Cancelled", "seconds": 60.0, "fps": 24, "width": 1280, "height": 720, "seed": 0}


def measure(stage: Stage, options: Options) -> list[Row]:
    """p50 and p99 over single renders."""
    stage.worker()
    chance = random.Random(1)
    took = [cancel_one(stage, chance.uniform(0.0, 0.6)) for _ in range(5 if options.quick else 20 * options.rounds)]
    return [
        Row("cancel → FFmpeg gone, p50", percentile(took, 50), None, "", "s"),
        Row("cancel → FFmpeg gone, p99", percentile(took, 99), None, "< 1 s", "s"),
    ]


def cancel_one(stage: Stage, after: float) -> float:
    """Render, cancel `after` seconds of FFmpeg's life; seconds from the cancel until it is gone."""
    job, _ = lifecycle.submit(stage.owner.pk, "RENDER", LONG)
    wait(lambda: ffmpeg_of(job.pk), stage, "worker")
    pid = ffmpeg_of(job.pk)
    started = procfs.started(pid)
    time.sleep(after)
    began = time.perf_counter()
    lifecycle.cancel(job.pk, by="bench")
    while procfs.started(pid) == started:
        time.sleep(0.002)
    return time.perf_counter() - began


def ffmpeg_of(job_id) -> int | None:
    """The pid of the FFmpeg that works in the job's work folder."""
    for pid in procfs.pids():
        try:
            folder = os.readlink(f"/proc/{pid}/cwd")
            program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            continue
        if folder.startswith(str(settings.WORK_ROOT)) and str(job_id) in folder and b"ffmpeg" in program:
            return pid
    return None
