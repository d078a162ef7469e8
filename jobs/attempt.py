"""One attempt as a kind sees it: params, inputs, progress, FFmpeg, outputs; and why it is to end, if it is."""

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connections

from . import artifacts, breakers, joblog, remote
from .engines import ffmpeg, process, tool
from .engines.breaker import Breaker
from .errors import ErrorCode, JobError, LeaseLost
from .kinds.base import Abort
from .kinds.fields import key_problem
from .lifecycle import Lease
from .models import JobInput
from .policy import lease_deadline

STAGES_MOST, STAGE_LENGTH = 20, 40  # of one attempt, whose seconds are kept: the rest counts as "more"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Attempt:
    """The `Run` that a kind is given (see `jobs.kinds.base.Run`), shared with the heartbeat thread.

    `abort` is set once, by whoever finds that the attempt is to end; `child` is the pid of its FFmpeg while one runs.
    """

    def __init__(self, lease: Lease, workdir: Path, *, watcher_lives: Callable[[], bool] = lambda: True):
        self.lease = lease
        self.job_id = lease.job_id
        self.params = lease.params
        self._workdir, self._folder_made = workdir, False
        self.fraction = 0.0
        self.stage = "claimed"
        self.said = joblog.Log(lease.job_id, lease.attempt)
        self.outputs: list[artifacts.Output] = []
        self.abort: JobError | LeaseLost | None = None
        self.child: int | None = None
        self.interruptible = False  # while the kind's own code runs: it may be interrupted by an exception
        self.finished = threading.Event()
        self.began = self.moved_at = self.beat_at = self._entered_at = time.monotonic()
        self._took: dict[str, float] = {}  # seconds of the stages that are over
        self._watcher_lives = watcher_lives
        self._inputs: dict[str, Future[Path]] | None = None
        self._files = ThreadPoolExecutor(2, "files")  # copies, hashes and syncs beside the kind; starts no child
        self._closed = False

    # --- what a kind calls ----------------------------------------------------------------------------------------

    @property
    def workdir(self) -> Path:
        if not self._folder_made:  # only now: it is half of what a run costs that needs none
            self._folder_made = True
            self._workdir.mkdir(parents=True, mode=0o700)
        return self._workdir

    def input(self, reference: str) -> Path:
        self.check()
        if self._inputs is None:
            rows = JobInput.objects.filter(job_id=self.lease.job_id).select_related("artifact", "upload").order_by("pk")
            self._inputs = {row.reference: self._beside(artifacts.fetch, row, self.workdir) for row in rows}
        if reference not in self._inputs:
            raise JobError(ErrorCode.input_gone, f"{reference} was removed.")
        return self._fetched(self._inputs[reference])

    def fetch_key(self, key: str) -> Path:
        self.check()
        own = settings.JOBSITE
        if problem := key_problem(key, own["INGEST_PREFIX"]):
            raise JobError(ErrorCode.bad_input, f"{key}: {problem}")
        target = self.workdir / "stored-file"
        return self._fetched(self._beside(artifacts.fetch_key, key, target, own["UPLOAD_MAX_BYTES"]))

    def _fetched(self, path: Future[Path]) -> Path:
        while wait([path], timeout=0.1).not_done:
            self.check()
        return path.result()

    def progress(self, fraction: float, stage: str | None = None) -> None:
        fraction = min(1.0, max(0.0, float(fraction)))
        stage = stage and "".join(c if c.isprintable() else " " for c in stage)
        if fraction != self.fraction or (stage and stage != self.stage):
            self.moved_at = time.monotonic()
        if stage and stage != self.stage:
            self.said.say(stage)
            self.enter(stage)
        self.fraction = fraction
        self.check()

    def log(self, text: str) -> None:
        self.said.say(text)

    def alive(self) -> None:
        self.moved_at = time.monotonic()
        self.check()

    def check(self) -> None:
        if self.should_stop():
            self.interruptible = False  # it has noticed: what it does to end (a remote cancel) is not disturbed
            raise Abort

    def ffmpeg(self, args: list[str], *, seconds: float, start: float = 0.0, end: float = 1.0) -> None:
        def moved(done: float) -> None:
            self.moved_at = time.monotonic()
            self.fraction = min(end, start + (end - start) * min(1.0, done / max(seconds, 0.001)))

        own = settings.JOBSITE
        self.check()
        try:
            ffmpeg.transcode(
                args,
                cwd=self.workdir,
                seconds=seconds,
                limits=process.Limits(
                    seconds=self.time_left(),
                    memory_bytes=own["MEDIA_MEMORY_BYTES"],
                    file_bytes=own["MEDIA_FILE_BYTES"],
                ),
                on_progress=moved,
                stop=self.check,
                on_start=self._child_started,
                binary=None if own["FFMPEG"] == "bundled" else own["FFMPEG"],
            )
        finally:
            self.child = None
        self.progress(end)

    def tool(
        self,
        module: str,
        task: dict[str, Any],
        *,
        memory_bytes: int | None = None,
        start: float = 0.0,
        end: float = 1.0,
    ) -> dict[str, Any]:
        def moved(done: float) -> None:
            self.moved_at = time.monotonic()
            self.fraction = min(end, start + (end - start) * done)

        own = settings.JOBSITE
        self.check()
        try:
            answer = tool.run(
                module,
                task,
                cwd=self.workdir,
                limits=process.Limits(
                    seconds=self.time_left(),
                    memory_bytes=memory_bytes or own["MEDIA_MEMORY_BYTES"],
                    file_bytes=own["MEDIA_FILE_BYTES"],
                ),
                on_progress=moved,
                stop=self.check,
                on_start=self._child_started,
            )
        finally:
            self.child = None
        self.progress(end)
        return answer

    def breaker(self, target: str) -> Breaker:
        return breakers.breaker(target)

    def remote(self, provider: str, seconds: float) -> remote.Call:
        return remote.intend(self.lease.job_id, self.lease.attempt, provider, seconds)

    def output(self, path: Path, name: str, content_type: str = "video/mp4") -> None:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name for an output")
        if path.is_symlink() or self.workdir.resolve() not in path.resolve().parents:
            raise ValueError("an output must be a file of the work folder")
        self.outputs.append(artifacts.Output(path, name, content_type, self._beside(artifacts.seal, path)))

    def _beside(self, work: Callable[..., Any], *args: object) -> Future[Any]:
        """Do work on files in a thread; moving bytes are a sign of life, and it ends when the attempt does."""

        def check() -> None:
            if self._closed or self.should_stop():  # not `check`: that says that the kind's own thread has noticed
                raise Abort
            self.moved_at = time.monotonic()

        def do() -> Any:
            try:
                return work(*args, check)
            finally:
                connections.close_all()  # this thread's own: a remote storage's breaker may have asked

        return self._files.submit(do)

    # --- what the runner and the heartbeat thread call ------------------------------------------------------------

    def enter(self, stage: str) -> None:
        """Begin a stage; what the one before took is kept."""
        self._took = self._taken()
        self.stage, self._entered_at = stage, time.monotonic()

    def stages(self) -> list[tuple[str, float]] | None:
        """Seconds of each stage so far, in order; None if it named none."""
        return [(name, round(seconds, 3)) for name, seconds in self._taken().items()] if self._took else None

    def _taken(self) -> dict[str, float]:
        name = self.stage.partition(":")[0][:STAGE_LENGTH]
        if name not in self._took and len(self._took) >= STAGES_MOST:
            name = "more"
        return self._took | {name: self._took.get(name, 0.0) + time.monotonic() - self._entered_at}

    def end(self, reason: JobError | LeaseLost) -> None:
        """Say why the attempt is to end; the first reason stays."""
        self.abort = self.abort or reason

    def lost_its_folder(self) -> bool:
        """Whether the work folder was deleted under the run."""
        return self._folder_made and not self._workdir.exists()

    def close(self) -> None:
        """Wait for the threads that work on files; what they have not finished is given up."""
        self._closed = True
        self._files.shutdown(cancel_futures=True)

    def should_stop(self) -> bool:
        """Whether the attempt is to end: told so, leaseless for too long, or nobody beats for it any more."""
        if self.abort is None:
            if time.monotonic() > self.deadline():
                self.end(LeaseLost(self.lease.job_id, self.lease.attempt))
            elif not self._watcher_lives():
                self.end(JobError(ErrorCode.internal_error, "The attempt's heartbeat stopped.", retryable=True))
        return self.abort is not None

    def judge_clocks(self) -> None:
        """End the attempt if it ran past its limit or stopped moving."""
        now = time.monotonic()
        if now - self.began > self.lease.run_limit:
            self.end(JobError(ErrorCode.timeout, f"The limit is {self.lease.run_limit:g} s."))
        elif self.interruptible and now - self.moved_at > self.lease.stall_limit:
            self.end(JobError(ErrorCode.stalled, f"Nothing moved for {self.lease.stall_limit:g} s."))
        self.should_stop()

    def deadline(self) -> float:
        """The monotonic time until which this attempt may still believe in its lease."""
        return self.beat_at + lease_deadline(settings.JOBSITE["HEARTBEAT_TIMEOUT"])

    def time_left(self) -> float:
        """Seconds of the run limit that are left, at least one."""
        return max(1.0, self.lease.run_limit - (time.monotonic() - self.began))

    def _child_started(self, pid: int) -> None:
        self.child = pid
        self.moved_at = time.monotonic()
