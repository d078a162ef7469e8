"""What media jobs need of this host: FFmpeg's parts, the walls around it, models and remote engines."""

import functools
import importlib.util
import subprocess
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.checks import CheckMessage

from .. import intake
from ..engines import ffmpeg, process, runpod_api
from ..errors import JobError
from .examine import error, examination, note, warning

FILTERS = [
    *("acrossfade", "aformat", "ametadata", "anullsrc", "aresample", "asetpts", "atrim", "color", "crop", "drawtext"),
    *("ebur128", "format", "fps", "gradients", "metadata", "overlay", "pad", "scale", "scdet", "select", "setpts"),
    *("setsar", "settb", "tile", "tpad", "trim", "xfade", "zoompan"),
]
ENCODERS = ["aac", "libx264", "png"]


@examination("FFmpeg")
def parts() -> Iterator[CheckMessage]:
    named = settings.JOBSITE["FFMPEG"]
    binary = ffmpeg.bundled() if named == "bundled" else named
    try:
        ffmpeg.version(binary)
        missing = {what: [name for name in needed if name not in _has(binary, what)] for what, needed in WANTED.items()}
    except (JobError, subprocess.SubprocessError):  # or it ends when it is asked for its parts
        yield error("E140", f"FFmpeg does not run: {binary}.", "Unset FFMPEG, or name one that runs.")
        return
    if lacks := [name for names in missing.values() for name in names]:
        yield error(
            "E141",
            f"This FFmpeg lacks {', '.join(lacks)}.",
            "Unset FFMPEG: the bundled one has them; or build yours with libx264 and libfreetype.",
        )


WANTED = {"-filters": FILTERS, "-encoders": ENCODERS}


@functools.cache
def _has(binary: str, what: str) -> frozenset[str]:
    """The names that `ffmpeg -filters` or `-encoders` lists."""
    said = subprocess.run([binary, "-hide_banner", what], capture_output=True, text=True, timeout=20, check=True)
    return frozenset(words[1] for line in said.stdout.splitlines() if len(words := line.split()) > 1)


@examination("walls around media")
def walls() -> Iterator[CheckMessage]:
    refused = bool(process.walls().missing) and settings.PRODUCTION and settings.JOBSITE["MEDIA_WALLS"] == "required"
    gaps = intake.wall_gaps()
    words = f"Around a media file that takes FFmpeg over this host lacks: {'; '.join(gaps)}."
    hint = "docs/operations.md (Media walls) says what each needs of the host."
    if refused:
        yield error("E142", f"{words} Media jobs are refused for it.", hint)
    elif gaps:
        yield warning("W143", words, hint)


def _on_runpod() -> bool:
    return "runpod" in (settings.JOBSITE["RENDER_ENGINE"], settings.JOBSITE["ENHANCE_ENGINE"])


@examination("models and remote engines")
def engines() -> Iterator[CheckMessage]:
    own = settings.JOBSITE
    needs = [
        (own["UPSCALER_MODEL"], "UPSCALER_MODEL", Path.is_file, "onnxruntime"),
        (own["SPEECH_MODEL"], "SPEECH_MODEL", Path.is_dir, "faster_whisper"),
    ]
    for path, name, there, package in needs:
        if path and not there(Path(path)):
            yield error("E144", f"{name} names {path}, which is not there.", f"Correct {name}, or unset it.")
        if path and importlib.util.find_spec(package) is None:
            yield error("E145", f"{name} needs the package {package}.", "pip install -r requirements-gpu.txt")
    if _on_runpod() and not (own["RUNPOD_API_KEY"] and own["RUNPOD_ENDPOINT_ID"]):
        yield error(
            "E146",
            "Jobs are sent to RunPod, but RUNPOD_API_KEY or RUNPOD_ENDPOINT_ID is not set.",
            "Set both (docs/runpod.md), or RENDER_ENGINE=preview and ENHANCE_ENGINE=resample.",
        )
    if own["RENDER_ENGINE"] == "preview" and settings.PRODUCTION:
        yield note(
            "I147",
            "RENDER draws a labelled picture of the prompt on the CPU: no GPU is used.",
            "RENDER_ENGINE=runpod has films drawn (docs/runpod.md).",
        )


@examination("RunPod answers", live=True)
def runpod() -> Iterator[CheckMessage]:
    if not _on_runpod():
        return
    try:
        with runpod_api.client(settings.JOBSITE) as endpoint:
            endpoint.health()
    except (JobError, runpod_api.RunpodError) as wrong:
        words = f"RunPod does not tell how its endpoint is: {wrong}"
        yield warning("W148", words, "Look at RUNPOD_API_KEY and RUNPOD_ENDPOINT_ID, and at RunPod's console.")
