"""INGEST: a video looked at once: scenes, key frames, a contact sheet, loudness, what is said, and a summary of it."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from rest_framework import serializers

from jobs.engines import ffmpeg, folders, media, scenes, speech
from jobs.engines.scenes import Loudness, Scene
from jobs.errors import ErrorCode, JobError
from jobs.kinds.base import InputField, Kind, Limits, Run, register
from jobs.kinds.fields import TextField, key_problem, path_problem

SOURCES = {"upload": "upload", "path": "path", "s3": "s3_key"}  # source_type: the param that goes with it
KEYFRAMES_MOST = 60
CELLS_MOST, CELL_SIDE = 36, 320  # of the contact sheet; pixels of a cell's longer side
LOOKED, DECODED, HEARD = 0.1, 0.6, 0.95  # progress at the end of each step


@register
class Ingest(Kind):
    """Look at a video from an upload, the operator's folder or the storage.

    Outputs: `result.json`, `contact_sheet.jpg`, `keyframe-001.jpg` and on, one for each of the 60 longest scenes.
    """

    name = "INGEST"
    queue = "cpu"
    for_operators = frozenset({"path", "s3_key"})  # the operator's own files
    fixed = {"source_type": "upload"}
    limits = Limits(run=7200, stall=300)  # seconds; a speech model is silent while it loads

    class Params(serializers.Serializer):
        source_type = serializers.ChoiceField(choices=list(SOURCES))
        upload = InputField(required=False)
        path = TextField(max_length=1000, trim_whitespace=False, required=False)
        s3_key = TextField(max_length=1024, trim_whitespace=False, required=False)

        def validate_path(self, path: str) -> str:
            problem = path_problem(path)
            if not problem and folders.leads_out(settings.JOBSITE["INGEST_ROOT"], path):
                problem = "Must not lead out of its folder."
            if problem:
                raise serializers.ValidationError(problem)
            return path

        def validate_s3_key(self, key: str) -> str:
            if problem := key_problem(key, settings.JOBSITE["INGEST_PREFIX"]):
                raise serializers.ValidationError(problem)
            return key

        def validate(self, params: dict[str, Any]) -> dict[str, Any]:
            kind, needed = params["source_type"], SOURCES[params["source_type"]]
            wrong = {
                name: f"Goes with source_type {other}, not {kind}."
                for other, name in SOURCES.items()
                if name in params and name != needed
            }
            if needed not in params:
                wrong[needed] = f"Is needed with source_type {kind}."
            if wrong:
                raise serializers.ValidationError(wrong)
            return params

    def price(self, params: dict[str, Any]) -> int:
        return settings.JOBSITE["PRICE_INGEST"]

    def run(self, run: Run) -> None:
        label = SOURCES[run.params["source_type"]]
        model = Path(settings.JOBSITE["SPEECH_MODEL"]) if settings.JOBSITE["SPEECH_MODEL"] else None
        if model:
            speech.check(model)
        took: dict[str, float] = {}
        run.progress(0.0, "validating_input")
        with timed(took, "fetch"):
            path = fetch(run)
        with timed(took, "probe"):
            found = look(run, path, label)
        run.progress(LOOKED, "pipeline_running")
        decoded = DECODED if model else HEARD
        with timed(took, "decode"):
            frames = decode(run, path, found, label, until=decoded, with_speech=model is not None)
        result = {
            "ad_id": str(run.job_id),
            "source": {
                "type": run.params["source_type"],
                "name": run.params[label],
                "bytes": path.stat().st_size,
                "content_type": found.content_type,
            },
            **streams(found),
        }
        parts = scenes.scenes(frames, end_of(found))
        result["scenes"] = [{"start": round(part.start, 3), "end": round(part.end, 3)} for part in parts]
        with timed(took, "keyframes"):
            result["keyframes"] = keyframes(run, frames, parts)
            result["contact_sheet"] = contact_sheet(run, frames, found, progress=decoded)
        loudness = scenes.read_loudness(run.workdir, found.audio.start - found.start) if found.audio else None
        result["loudness"] = loudness and {
            "integrated_lufs": loudness.integrated,
            "range_lu": loudness.range,
            "true_peak_dbtp": loudness.true_peak,
        }
        with timed(took, "transcript"):
            result["transcript"], result["transcript_missing"] = transcript(run, model, found)
        result["summary"] = summary(found, parts, loudness, result["transcript"])
        result["seconds_taken"] = took
        (run.workdir / "result.json").write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
        run.output(run.workdir / "result.json", "result.json", "application/json")
        for frame in result["keyframes"]:
            run.output(run.workdir / frame["file"], frame["file"], "image/jpeg")
        run.output(run.workdir / "contact_sheet.jpg", "contact_sheet.jpg", "image/jpeg")


@contextmanager
def timed(took: dict[str, float], step: str) -> Iterator[None]:
    """Note in `took` how many seconds the block takes."""
    began = time.monotonic()
    yield
    took[step] = round(time.monotonic() - began, 3)


def fetch(run: Run) -> Path:
    """A local copy of the video, whichever way it comes."""
    match run.params["source_type"]:
        case "upload":
            return run.input(run.params["upload"])
        case "s3":
            return run.fetch_key(run.params["s3_key"])
    own = settings.JOBSITE
    target = run.workdir / "stored-file"
    return folders.copy(own["INGEST_ROOT"], run.params["path"], target, most=own["UPLOAD_MAX_BYTES"], check=run.alive)


def look(run: Run, path: Path, label: str) -> media.Probe:
    """What is in the file. JobError(bad_input) unless it is a whole video."""
    kind = media.sniff(path) or ""
    if not kind.startswith("video/"):
        raise JobError(ErrorCode.bad_input, f"{label} is not a video that can be read here.")
    found = media.probe(path, label=label, stop=run.check)
    if found.video is None or not found.video.frames:
        raise JobError(ErrorCode.bad_input, f"{label} has no pictures.")
    if found.cut:
        raise JobError(ErrorCode.bad_input, f"{label} is cut short: the file ends in the middle.")
    return found


def end_of(found: media.Probe) -> float:
    """Seconds from the file's start, as FFmpeg counts them, to the end of the pictures."""
    assert found.video
    return found.video.end - found.start


def last_of(found: media.Probe) -> float:
    """Seconds from the file's start to its last picture, which may stand for long: of a screen that was recorded."""
    assert found.video
    return found.video.last - found.start


def length(found: media.Probe) -> float:
    """Seconds from the first picture or sound to the end of the last."""
    return max(stream.end for stream in found.streams if stream.frames) - found.start


def shown(found: media.Probe) -> tuple[int, int]:
    """Width and height of the pictures as they are shown, in square pixels."""
    assert found.video
    width, height = max(1, round(found.video.width * found.video.aspect)), found.video.height
    return (height, width) if found.video.rotation in (90, 270) else (width, height)


def decode(
    run: Run, path: Path, found: media.Probe, label: str, *, until: float, with_speech: bool
) -> list[scenes.Frame]:
    """Decode the file, once, and return the pictures kept; progress goes from LOOKED to `until`.

    JobError(ffmpeg_error) if it cannot be decoded to its end.
    """
    size, seconds = scenes.fitted(*shown(found), scenes.LONGER_SIDE), end_of(found)
    source = ffmpeg.source(path, found.content_type)
    args = scenes.one_pass(source, size, seconds, sound=found.audio is not None, speech=with_speech)
    try:
        run.ffmpeg(args, seconds=length(found), start=LOOKED, end=until)
    except JobError as failed:
        if failed.code is ErrorCode.ffmpeg_error:
            raise JobError(failed.code, f"{label}: {failed.message}", retryable=failed.retryable) from failed
        raise
    frames = scenes.read_frames(run.workdir)
    reached, last = frames[-1].at if frames else 0.0, last_of(found)
    if not frames or reached < last - 2 * scenes.step(seconds) - 1:  # code 0 does not prove a whole file
        raise JobError(ErrorCode.ffmpeg_error, f"{label} gave pictures for {reached:.1f} of {last:.1f} seconds.")
    return frames


def streams(found: media.Probe) -> dict[str, Any]:
    """What the probe says, for the result."""
    video, audio = found.video, found.audio
    assert video
    width, height = shown(found)
    return {
        "duration": round(length(found), 3),  # seconds
        "video": {
            "codec": video.codec,
            "width": width,
            "height": height,
            "rotation": video.rotation,
            "fps": round(video.fps, 3),
            "variable_fps": video.variable,
            "frames": video.frames,
            "pixel_format": video.pixel_format,
        },
        "audio": audio and {"codec": audio.codec, "sample_rate": audio.sample_rate, "channels": audio.channels},
    }


def keyframes(run: Run, frames: list[scenes.Frame], parts: list[Scene]) -> list[dict[str, Any]]:
    """Give the key frames' files the names that they are published under; what the result says of them."""
    told = []
    for number, (scene, frame) in enumerate(scenes.keyframes(frames, parts, KEYFRAMES_MOST), 1):
        name = f"keyframe-{number:03d}.jpg"
        os.link(run.workdir / frame.file, run.workdir / name)
        told.append({"file": name, "at": round(frame.at, 3), "scene": scene})
    return told


def contact_sheet(run: Run, frames: list[scenes.Frame], found: media.Probe, *, progress: float) -> dict[str, Any]:
    """Lay out pictures at even distances in `contact_sheet.jpg`; what the result says of it."""
    chosen = scenes.evenly(frames, end_of(found), CELLS_MOST)
    for number, frame in enumerate(chosen, 1):
        os.link(run.workdir / frame.file, run.workdir / f"cell-{number:02d}.jpg")
    cell = scenes.fitted(*shown(found), CELL_SIDE)
    args, columns, rows = scenes.contact_sheet("cell-%02d.jpg", len(chosen), cell, "contact_sheet.jpg")
    run.ffmpeg(args, seconds=len(chosen), start=progress, end=progress)
    at = [round(frame.at, 3) for frame in chosen]
    return {"file": "contact_sheet.jpg", "columns": columns, "rows": rows, "at": at}


def transcript(run: Run, model: Path | None, found: media.Probe) -> tuple[dict[str, Any] | None, str | None]:
    """(what is said, None) or (None, why nobody heard it)."""
    if model is None:
        return None, "No speech model is configured."
    if found.audio is None:
        return None, "The video has no sound."
    run.progress(DECODED, "transcription")
    task = speech.task(model, scenes.SPEECH, "transcript.json")
    run.tool(speech.MODULE, task, memory_bytes=speech.MEMORY_BYTES, start=DECODED, end=HEARD)
    run.progress(HEARD, "pipeline_running")
    return speech.read(run.workdir / "transcript.json"), None


def summary(found: media.Probe, parts: list[Scene], loudness: Loudness | None, said: dict[str, Any] | None) -> str:
    """A few sentences made of the facts alone: the same facts, the same words."""
    video, audio = found.video, found.audio
    assert video
    width, height = shown(found)
    sound = f"{audio.codec} sound in {audio.channels} channel{'s' * (audio.channels != 1)}" if audio else "no sound"
    lines = [f"{clock(length(found))} of {width}x{height} {video.codec} at {video.fps:.4g} pictures a second, {sound}."]
    if len(parts) == 1:
        lines.append("One scene without a cut.")
    else:
        longest = max(parts, key=lambda part: part.seconds)
        average = sum(part.seconds for part in parts) / len(parts)
        lines.append(
            f"{len(parts)} scenes of {average:.1f} s on average; the longest, {longest.seconds:.1f} s, "
            f"begins at {clock(longest.start)}."
        )
    if loudness and loudness.integrated is not None:
        peak = "" if loudness.true_peak is None else f", true peak {loudness.true_peak:.1f} dBTP"
        span = "" if loudness.range is None else f", range {loudness.range:.1f} LU"
        lines.append(f"Loudness {loudness.integrated:.1f} LUFS{peak}{span}.")
    elif audio:
        lines.append("The sound is silent, too short or changes its form: its loudness was not measured.")
    if said:
        words = " ".join(segment["text"] for segment in said["segments"]).split()
        begin = " ".join(words[:25]) + (" …" if len(words) > 25 else "")
        lines.append(f"{len(words)} words in {said['language']}: “{begin}”" if words else "Nothing is said.")
    return " ".join(lines)


def clock(seconds: float) -> str:
    """Seconds as m:ss.s or h:mm:ss.s."""
    tenths = round(seconds * 10)
    hours, minutes, rest = tenths // 36000, tenths // 600 % 60, tenths % 600 / 10
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
