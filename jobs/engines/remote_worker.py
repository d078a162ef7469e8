"""The far side: what a RunPod worker does with one request. For `deploy/runpod/handler.py` and by the fake."""

import base64
import binascii
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from jobs.engines import ffmpeg, pictures, process, tool

PREVIEW = "jobs.engines.preview"  # the engine that needs no GPU
PICTURES = frozenset(pictures.LOADERS)  # content types
TASKS: dict[str, dict[str, int | tuple[float, float] | frozenset[str]]] = {  # longest text, bounds or choices by param
    "RENDER": {
        "prompt": 2000,
        "seconds": (1, 60),
        "fps": (8, 60),
        "width": (64, 1920),
        "height": (64, 1920),
        "seed": (0, 2**31 - 1),
    },
    "ENHANCE": {
        "content_type": PICTURES,
        "as_type": PICTURES,
        "side": (64, 4096),
        "quality": (1, 100),
        "denoise": (0, 1),
        "sharpen": (0, 1),
    },
}
PARTS = {"seconds", "denoise", "sharpen"}  # the numbers that need not be whole
MODEL_MEMORY = 16 * 1024**3


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


def work(
    given: Any,
    workdir: Path,
    *,
    engine: str = PREVIEW,
    model: str = "",
    report: Callable[[float], None] = lambda fraction: None,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Do what a request's `input` asks for, into a file of `workdir`: RENDER with the engine module named, ENHANCE with
    the super-resolution `model` (a path; empty: resampling).

    `report` gets the fraction done, at most twice a second. Raises BadRequest, JobError, or process.Stopped once
    `stop` says so.
    """
    params = checked(given)
    source = received(given, workdir)
    last = 0.0

    def now_and_then(fraction: float) -> None:
        nonlocal last
        if time.monotonic() - last >= 0.5:
            last = time.monotonic()
            report(round(min(1.0, max(0.0, fraction)), 4))

    if given["task"] == "ENHANCE":
        if source is None:
            raise BadRequest("file_base64 is missing.")
        task = params | {"path": str(source), "label": "image", "into": "made", "model": model}
        limits = process.Limits(seconds=3600, memory_bytes=MODEL_MEMORY)
        tool.run("jobs.engines.upscale", task, cwd=workdir, limits=limits, on_progress=now_and_then, stop=stop)
        return workdir / "made"
    return import_module(engine).render(Work(params, workdir, report=now_and_then, stop=stop), params, source)


def checked(given: Any) -> dict[str, Any]:
    """A request's params. BadRequest says what is wrong with them."""
    if not isinstance(given, dict) or given.get("task") not in TASKS or not isinstance(given.get("params"), dict):
        raise BadRequest(f"input must hold params and a task of {', '.join(TASKS)}.")
    params = given["params"]
    for name, rule in TASKS[given["task"]].items():
        value = params.get(name)
        if isinstance(rule, frozenset):
            if not isinstance(value, str) or value not in rule:
                raise BadRequest(f"params.{name} must be one of {', '.join(sorted(rule))}.")
        elif isinstance(rule, int):
            if not isinstance(value, str) or not 1 <= len(value) <= rule:
                raise BadRequest(f"params.{name} must be text of 1 to {rule} characters.")
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not rule[0] <= value <= rule[1]:
            raise BadRequest(f"params.{name} must be a number from {rule[0]} to {rule[1]}.")
        elif name not in PARTS and value != int(value):
            raise BadRequest(f"params.{name} must be whole.")
    return {name: params[name] for name in TASKS[given["task"]]}


def received(given: dict[str, Any], workdir: Path) -> Path | None:
    """The file that came with a request, if one did. BadRequest if it is no base64."""
    if not given.get("file_base64"):
        return None
    try:
        content = base64.b64decode(given["file_base64"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise BadRequest("file_base64 is no base64.") from error
    source = workdir / "source"
    source.write_bytes(content)
    return source
