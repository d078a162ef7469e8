"""The far side: what a RunPod worker does with one request. Used by `deploy/runpod/handler.py` and by the fake."""

import base64
import binascii
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from jobs.engines import ffmpeg, process

PREVIEW = "jobs.engines.preview"  # the engine that needs no GPU
LIMITS = {"seconds": (1, 60), "fps": (8, 60), "width": (64, 1920), "height": (64, 1920), "seed": (0, 2**31 - 1)}


class BadRequest(ValueError):
    """The input is not one that this worker understands."""


class Work:
    """One request's run as an engine sees it: a folder, FFmpeg, and reports of how far it is."""

    def __init__(
        self,
        params: dict[str, Any],
        workdir: Path,
        *,
        report: Callable[[float], None],
        stop: Callable[[], bool] = lambda: False,
    ):
        self.params, self.workdir, self.report, self.stop = params, workdir, report, stop

    def progress(self, fraction: float, stage: str | None = None) -> None:
        self.report(fraction)
        self.check()

    def alive(self) -> None:
        self.check()

    def check(self) -> None:
        if self.stop():
            raise process.Stopped

    def ffmpeg(self, args: list[str], *, seconds: float, start: float = 0.0, end: float = 1.0) -> None:
        def moved(done: float) -> None:
            self.report(start + (end - start) * done / max(seconds, 0.001))

        limits = process.Limits(seconds=3600)
        ffmpeg.transcode(args, cwd=self.workdir, seconds=seconds, limits=limits, on_progress=moved, stop=self.stop)


def draw(
    given: Any,
    workdir: Path,
    *,
    engine: str = PREVIEW,
    report: Callable[[float], None] = lambda fraction: None,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Draw what a request's `input` asks for with the engine module named, into a file of `workdir`.

    `report` gets the fraction done, at most twice a second. Raises BadRequest, JobError, or process.Stopped once
    `stop` says so.
    """
    params, image = read(given, workdir)
    last = 0.0

    def now_and_then(fraction: float) -> None:
        nonlocal last
        if time.monotonic() - last >= 0.5:
            last = time.monotonic()
            report(round(min(1.0, max(0.0, fraction)), 4))

    work = Work(params, workdir, report=now_and_then, stop=stop)
    return import_module(engine).render(work, params, image)


def read(given: Any, workdir: Path) -> tuple[dict[str, Any], Path | None]:
    """A request's params, checked, and its image as a file. BadRequest says what is wrong with it."""
    if not isinstance(given, dict) or given.get("task") != "RENDER" or not isinstance(given.get("params"), dict):
        raise BadRequest("input must hold task RENDER and params.")
    params = given["params"]
    if not isinstance(params.get("prompt"), str) or not 1 <= len(params["prompt"]) <= 2000:
        raise BadRequest("params.prompt must be text of 1 to 2,000 characters.")
    for name, (least, most) in LIMITS.items():
        value = params.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise BadRequest(f"params.{name} must be a number from {least} to {most}.")
        if name != "seconds" and value != int(value):
            raise BadRequest(f"params.{name} must be whole.")
    if not given.get("file_base64"):
        return params, None
    try:
        content = base64.b64decode(given["file_base64"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise BadRequest("file_base64 is no base64.") from error
    image = workdir / "image"
    image.write_bytes(content)
    return params, image
