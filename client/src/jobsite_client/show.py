"""What a person sees while they wait: a bar on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from .models import Job

WORDS = {"QUEUED": "waiting", "RETRY": "waiting to be tried again", "RUNNING": "running"}


def words(job: Job) -> str:
    """How it stands, in a few words."""
    if job.status_hint == "warming_gpu":
        return "warming GPU (first run ~30 s)"
    told = WORDS.get(job.status, job.status.lower())
    if job.queue_position:
        told += f", place {job.queue_position}"
    return f"{told}: {job.stage}" if job.stage and job.status == "RUNNING" else told


def tokens(number: int) -> str:
    return f"{number} token{'' if number == 1 else 's'}"


def line(job: Job) -> str:
    """A job in one line."""
    end = f"{job.error.code}: {job.error.message}" if job.error else f"{job.progress:.0%}"
    money = tokens(job.cost.charged - job.cost.refunded)
    return clean(f"{job.id}  {job.kind:<8} {job.status:<9}  {job.created_at:%Y-%m-%d %H:%M}  {money:>10}  {end}")


def block(job: Job) -> str:
    """A job in a few lines."""
    rows = [
        ("job", job.id),
        ("kind", job.kind),
        ("status", f"{job.status} ({words(job)}, {job.progress:.0%})"),
        ("attempt", f"{job.attempt}, at most {job.max_attempts}"),
        ("tokens", f"{job.cost.charged} charged, {job.cost.refunded} given back"),
        *([("error", f"{job.error.code}: {job.error.message}")] if job.error else []),
        *(("output", f"{one.name}  {one.bytes} bytes  {one.content_type}") for one in job.outputs),
    ]
    return "\n".join(f"{name:<8} {clean(value)}" for name, value in rows)


def clean(text: str) -> str:
    """No control characters: what others wrote must not steer a terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


@contextmanager
def job() -> Iterator[Callable[[Job], None]]:
    """Yields what to call with each update of a job."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("submitting", total=1.0)

        def update(job: Job) -> None:
            told = Text(clean(f"{job.kind} {job.id[:8]}  {words(job)}")).markup  # no markup of others
            bar.update(task, description=told, completed=job.progress)

        yield update


class _Lines:
    """A line when status or stage changes, and each tenth of the way."""

    def __init__(self) -> None:
        self.last: object = None

    def __call__(self, job: Job) -> None:
        now = (job.id, job.status, job.stage, job.attempt, int(job.progress * 10))
        if now != self.last:
            self.last = now
            print(clean(f"{job.id}  {words(job)}  {job.progress:.0%}"), file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def transfer(name: str, *, upload: bool) -> Iterator[Callable[[int, int], None]]:
    """Yields what to call with the bytes done and the bytes in all."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, whole: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(Text(clean(f"{'up' if upload else 'down'}  {name}")).markup, total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)
