"""A job's log: what its runs said, line by line, bounded, for its owner.

A run collects lines; the heartbeat writes them with its beats, and the rest is written when the attempt fails or has
written some before. So a job that is over before its first beat and goes well costs nothing here.
"""

import contextlib
import logging
from collections import deque
from datetime import datetime

from django.db import Error, connection
from django.utils import timezone

from jobsite.logs import redact

from .models import Job, LogLine

log = logging.getLogger(__name__)

MOST = 500  # lines of one attempt
LENGTH = 300  # characters of a line; the rest is cut


class Log:
    """The lines of one attempt. `say` and `write` may be called from any thread: at an attempt's end its run and the
    heartbeat do."""

    def __init__(self, job_id, attempt: int):
        self.job_id, self.attempt = job_id, attempt
        self.written = 0
        self._said = 0
        self._waiting: deque[tuple[datetime, str]] = deque()

    def say(self, text: str) -> None:
        """Add lines; what comes after MOST of them is dropped, with a line that says so."""
        for line in text.splitlines():
            clean = "".join(c if c.isprintable() else " " for c in redact(line)).rstrip()[:LENGTH]
            if not clean or self._said > MOST:
                continue
            self._said += 1
            self._waiting.append((timezone.now(), clean if self._said <= MOST else "… more is not kept"))

    def write(self) -> None:
        """Store what waits, in one statement. A database that does not take it costs these lines, nothing else."""
        rows = []
        with contextlib.suppress(IndexError):  # to the end, whoever else takes from it
            while True:
                at, text = self._waiting.popleft()
                rows.append(LogLine(job_id=self.job_id, attempt=self.attempt, at=at, text=text))
        if not rows:
            return
        try:
            LogLine.objects.bulk_create(rows)
            self.written += len(rows)
        except Error as error:  # also a job that was deleted meanwhile
            log.warning("Job %s: %s log lines are lost (%s)", self.job_id, len(rows), type(error).__name__)
            connection.close_if_unusable_or_obsolete()


def latest(job: Job, most: int = 100) -> list[LogLine]:
    """The last lines of a job, oldest first."""
    return list(LogLine.objects.filter(job_id=job.pk).order_by("-pk")[:most])[::-1]


def read(job: Job, *, after: int = 0, most: int = MOST) -> list[LogLine]:
    """The lines of all attempts of a job whose ids are over `after`, oldest first, at most `most`."""
    return list(LogLine.objects.filter(job_id=job.pk, pk__gt=after).order_by("pk")[:most])
