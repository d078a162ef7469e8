"""A worker's hand, for tests that need no worker: claims a job and lets it succeed."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from django.db import connection

from jobs import artifacts, lifecycle
from tests.waiting import until


@contextmanager
def hand(work: Callable[[], object]) -> Iterator[None]:
    """Do `work` in a thread beside the body, and raise what it raised at the end."""
    done: Future = Future()

    def go() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)
        finally:
            connection.close()

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    yield
    done.result(timeout=60)
    thread.join(5)


def claimed(queue: str = "cpu"):
    """The lease of the next job there is, waited for."""
    return until(lambda: lifecycle.claim(queue), seconds=30, every=0.02)


def finish(lease, folder: Path, **outputs: bytes) -> None:
    """Let a claimed job succeed with these outputs: `dish_txt=b"…"` is dish.txt."""
    made = []
    for name, content in outputs.items():
        path = folder / f"{lease.job_id}-{name}"
        path.write_bytes(content)
        sealed: Future = Future()
        sealed.set_result(artifacts.seal(path))
        made.append(artifacts.Output(path, name.replace("_", "."), "text/plain", sealed))
    lifecycle.succeed(lease, artifacts.store(lease.job_id, lease.attempt, made))
