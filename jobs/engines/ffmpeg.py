"""FFmpeg: the command line, its progress and its failures. Inputs get a demuxer that we chose from their bytes."""

import functools
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg

from jobs.engines import process
from jobs.engines.pictures import MAX_PIXELS
from jobs.errors import ErrorCode, JobError

DEMUXERS = {  # content type (media.sniff): the only demuxer that may touch the file
    "video/mp4": "mov",
    "video/quicktime": "mov",
    "audio/mp4": "mov",
    "video/x-matroska": "matroska",
    "video/webm": "matroska",
    "video/x-msvideo": "avi",
    "video/mp2t": "mpegts",
    "image/jpeg": "jpeg_pipe",
    "image/png": "png_pipe",
    "image/webp": "webp_pipe",
    "image/tiff": "tiff_pipe",
    "image/gif": "gif",
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/aac": "aac",
}
NOISE = re.compile("Task finished with error|Terminating thread|Conversion failed|Error opening (in|out)put files")


def source(path: Path, content_type: str) -> list[str]:
    """The arguments that read `path` as what its bytes say it is: no playlist, protocol or pattern is followed.

    `file:` in front keeps a name such as `-y` or `concat:x` a name (FAULTS traps 7, 8).
    """
    demuxer = DEMUXERS[content_type]
    walls = ["-protocol_whitelist", "file", "-format_whitelist", demuxer, "-max_pixels", str(MAX_PIXELS)]
    return [*walls, "-f", demuxer, "-i", f"file:{path}"]


def picture(path: Path, content_type: str) -> list[str]:
    """`source` of a still picture. A PNG is read as one: what is behind its end (some programs that crop leave the rest
    of the old file there) would be a second picture that cannot be decoded."""
    args = source(path, content_type)
    if content_type != "image/png":
        return args
    walls = ["image2" if word == "png_pipe" else word for word in args[:-2]]
    return [*walls, "-pattern_type", "none", "-c:v", "png", *args[-2:]]


def bundled() -> str:
    """The path of the FFmpeg that comes with imageio-ffmpeg."""
    return imageio_ffmpeg.get_ffmpeg_exe()


@functools.cache
def version(binary: str | None = None) -> str:
    """FFmpeg's own version word, such as `n9.0.2-17-g2a571b6068`. JobError(config_error) if it does not run."""
    try:
        said = subprocess.run([binary or bundled(), "-version"], capture_output=True, timeout=20, check=True)
        return said.stdout.decode(errors="replace").split()[2]
    except (OSError, subprocess.SubprocessError, IndexError) as wrong:  # another program may say less
        raise JobError(ErrorCode.config_error, "FFmpeg does not run on this host.") from wrong


def transcode(
    args: list[str],
    *,
    cwd: Path,
    seconds: float,
    limits: process.Limits,
    on_progress: Callable[[float], None] | None = None,
    stop: Callable[[], bool | None] = lambda: False,
    on_start: Callable[[int], None] | None = None,
    binary: str | None = None,
) -> None:
    """Run FFmpeg in `cwd` with `args` (its arguments from the first input on); returns when it has ended well.

    `seconds` is how long the output will be; `on_progress` gets the seconds of it that are done, 0.0 to `seconds` and
    never less than before, each quarter of a second, also when they did not move (a sign of life). `stop`, `on_start`,
    `limits` and Stopped are those of `process.run`; call it from the thread that owns the job. Raises JobError:
    ffmpeg_error with FFmpeg's last words (retryable if somebody else killed it), out_of_memory, storage_error (disk
    full), timeout. A good end does not prove a whole output: probe it (FAULTS trap 4).
    """

    done = 0.0

    def heard(line: str) -> None:
        nonlocal done
        name, _, value = line.partition("=")
        if name in ("out_time_us", "progress") and on_progress:
            if value == "end":
                done = seconds
            elif value.isdigit():  # N/A at first
                done = max(done, min(seconds, int(value) / 1e6))
            on_progress(done)

    argv = [binary or bundled(), "-hide_banner", "-nostdin", "-nostats", "-xerror", "-v", "error"]
    argv += ["-progress", "pipe:1", "-stats_period", "0.25", "-y", *args]
    ended = process.run(argv, cwd=cwd, limits=limits, on_line=heard, stop=stop, on_start=on_start)
    if ended.returncode:
        failure = _failure(ended, cwd)
        failure.said = [plain(line, cwd) for line in ended.tail]
        raise failure


def _failure(ended: process.Finished, cwd: Path) -> JobError:
    """What FFmpeg's end means to the user."""
    words = last_words(ended.tail, cwd)
    if ended.returncode == -signal.SIGXFSZ:
        return JobError(ErrorCode.ffmpeg_error, "The output would be larger than one file may be.")
    if ended.returncode < 0:
        name = signal.Signals(-ended.returncode).name if -ended.returncode in set(signal.Signals) else "a signal"
        return JobError(ErrorCode.ffmpeg_error, f"FFmpeg was ended by {name}. {words}".strip(), retryable=True)
    said = "\n".join(ended.tail)
    if "Cannot allocate memory" in said or "malloc" in said:
        return JobError(ErrorCode.out_of_memory, retryable=False)  # the same input would need as much again
    if "No space left on device" in said:
        return JobError(ErrorCode.storage_error, "The disk is full.")
    return JobError(ErrorCode.ffmpeg_error, words or f"FFmpeg ended with code {ended.returncode}.")


def last_words(tail: list[str], cwd: Path) -> str:
    """FFmpeg's last two lines that say something, in one, without paths, addresses and control characters."""
    lines = [re.sub(r"^(\[[^\]]*\] ?)+", "", line) for line in tail]
    return plain(" ".join([line for line in lines if not NOISE.search(line)][-2:] or lines[-1:]), cwd)[:400].strip()


def plain(text: str, cwd: Path) -> str:
    """What FFmpeg said without paths (only their last part stays), addresses and control characters."""
    text = text.replace(str(cwd), "")
    text = re.sub(r"(?:file:)?(?<![\w.])/(?:[^\s/:'\"]+/)*([^\s/:'\"]*)", r"\1", text)
    text = re.sub(r"\b\w+://\S+", "", text)
    return "".join(c for c in text if c.isprintable())
