"""A small real run: drives the engines as the runner does, without database or Celery."""

import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

from jobs.engines import ffmpeg, process, tool
from jobs.engines.breaker import Breaker
from jobs.kinds.base import Abort, Kind


class Rig:
    """One run in `workdir`; `inputs` maps references to files. `abort_when(rig)` true ends it as a cancel would."""

    def __init__(self, workdir: Path, params: dict[str, Any], inputs: dict[str, Path] | None = None, binary=None):
        self.workdir, self.params, self.inputs, self.binary = workdir, params, inputs or {}, binary
        self.job_id = UUID(int=1)
        self.workdir.mkdir(parents=True, exist_ok=True)
        self.fractions: list[float] = []
        self.stages: list[str] = []
        self.outputs: dict[str, Path] = {}
        self.commands: list[list[str]] = []
        self.pids: list[int] = []
        self.open_for = 0.0
        self.failures: list[str] = []
        self.abort_when = lambda rig: False

    def input(self, reference: str) -> Path:
        """A copy in the work folder, as a real run makes it: its children reach nothing else."""
        copy = self.workdir / f"input-{list(self.inputs).index(reference)}"
        return copy if copy.exists() else Path(shutil.copyfile(self.inputs[reference], copy))

    def fetch_key(self, key: str) -> Path:
        return self.input(key)

    def progress(self, fraction: float, stage: str | None = None) -> None:
        self.check()
        self.fractions.append(fraction)
        if stage:
            self.stages.append(stage)

    def alive(self) -> None:
        self.check()

    def check(self) -> None:
        if self.abort_when(self):
            raise Abort

    def ffmpeg(self, args: list[str], *, seconds: float, start: float = 0.0, end: float = 1.0) -> None:
        self.commands.append(args)
        ffmpeg.transcode(
            args,
            cwd=self.workdir,
            seconds=seconds,
            limits=process.Limits(seconds=120),
            on_progress=lambda done: self.fractions.append(min(end, start + done / seconds * (end - start))),
            stop=self.check,
            on_start=self.pids.append,
            binary=self.binary,
        )

    def tool(self, module, task, *, memory_bytes=2 * 1024**3, start=0.0, end=1.0) -> dict[str, Any]:
        return tool.run(
            module,
            task,
            cwd=self.workdir,
            limits=process.Limits(seconds=120, memory_bytes=memory_bytes),
            on_progress=lambda done: self.fractions.append(start + done * (end - start)),
            stop=self.check,
            on_start=self.pids.append,
        )

    def breaker(self, target: str) -> Breaker:
        return Breaker(target, self)

    # The rig is its breakers' store: `open_for` seconds, 0.0 for closed; `failures` are the targets that failed.

    def admit(self, target: str) -> tuple[float, bool]:
        return self.open_for, False

    def failed(self, target: str, *, probing: bool) -> None:
        self.failures.append(target)

    def output(self, path: Path, name: str, content_type: str = "video/mp4") -> None:
        assert path.is_file()
        self.outputs[name] = path


def validated(kind: Kind, **params) -> dict[str, Any]:
    """`params` as the API would hand them to the kind; AssertionError with the errors if it would refuse them."""
    form = kind.Params(data=params)
    assert form.is_valid(), form.errors
    return dict(form.validated_data)


def refused(kind: Kind, **params) -> dict[str, Any]:
    """The errors by field; empty if the kind takes these params."""
    form = kind.Params(data=params)
    form.is_valid()
    return form.errors
