"""What a media file is: its type from the bytes, and what its streams say, read in a child behind the walls.

Run as `python -m jobs.engines.media` it is that child: a JSON list of [path, content type] comes in argv, one line of
JSON per file goes out. Hostile bytes are never decoded in a web or worker process.
"""

import dataclasses
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from jobs.engines import ffmpeg, pictures, process
from jobs.engines.pictures import Unfit
from jobs.errors import ErrorCode, JobError

MAX_SECONDS = 6 * 3600.0
MAX_GAP = 60.0  # seconds between two pictures: a gap costs a picture per tick when it is filled (FAULTS trap 10)
MAX_STREAMS = 16
MAX_FPS = 240.0
MAX_FRAMES = int(MAX_SECONDS * MAX_FPS)
MAX_PIXELS = ffmpeg.MAX_PIXELS
PROBE_LIMITS = process.Limits(seconds=60, memory_bytes=1536 * 1024**2, file_bytes=1024**2, cpu_seconds=60)
ROOT = Path(__file__).resolve().parents[2]


def sniff(path: Path) -> str | None:
    """The content type that the first bytes say, one of `ffmpeg.DEMUXERS`; None for all else.

    Playlists, ffconcat, SVG, PDF, HTML and text are None whatever their name (FAULTS trap 8, S01, S09).
    """
    with open(path, "rb") as file:
        head = file.read(4096)
    box, brand = head[4:8], head[8:12]
    if box == b"ftyp" and len(head) >= 16:
        if brand in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis", b"jxl ", b"crx "):
            return None  # still pictures that the mov demuxer does not show as such
        return {b"qt  ": "video/quicktime", b"M4A ": "audio/mp4", b"M4B ": "audio/mp4"}.get(brand, "video/mp4")
    if box in (b"moov", b"mdat", b"wide") and len(head) >= 16:
        return "video/quicktime"  # before 2001 there was no ftyp
    if head[:4] == b"\x1aE\xdf\xa3":
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if head[:4] == b"RIFF":
        return {b"AVI ": "video/x-msvideo", b"WAVE": "audio/wav", b"WEBP": "image/webp"}.get(brand)
    if ts_packet(head):
        return "video/mp2t"
    starts = {
        b"\xff\xd8\xff": "image/jpeg",
        b"\x89PNG\r\n\x1a\n": "image/png",
        b"GIF87a": "image/gif",
        b"GIF89a": "image/gif",
        b"II*\0": "image/tiff",
        b"MM\0*": "image/tiff",
        b"fLaC": "audio/flac",
        b"OggS": "audio/ogg",
        b"ID3": "audio/mpeg",
    }
    for start, content_type in starts.items():
        if head.startswith(start):
            return content_type
    if len(head) > 4 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "audio/aac"  # ADTS: layer bits are 0
    if len(head) > 4 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[2] & 0xF0 not in (0, 0xF0):
        return "audio/mpeg"
    return None


def ts_packet(head: bytes) -> int:
    """Bytes of a packet of the MPEG transport stream that begins so: 188, or 192 with a time before each, as camcorders
    write it; 0: it is none."""
    for size, at in ((188, 0), (192, 4)):  # where the first packet's mark stands
        if len(head) > at + 2 * size and head[at] == head[at + size] == head[at + 2 * size] == 0x47:
            return size
    return 0


@dataclass(frozen=True)
class Stream:
    """One stream. Seconds from the file's first instant; sizes are as coded, before `rotation` (degrees) turns them."""

    kind: str  # video, audio or other; a cover picture is other, and what no decoder here knows
    codec: str
    time_base: str
    start: float = 0.0
    duration: float = 0.0  # of what is really there, from the packets
    last: float = 0.0  # when the last picture or sound begins
    frames: int = 0  # packets counted
    width: int = 0
    height: int = 0
    fps: float = 0.0  # average
    variable: bool = False  # the distances of its pictures differ by more than a millisecond
    rotation: int = 0
    aspect: float = 1.0  # width of a pixel by its height, before rotation
    pixel_format: str = ""
    sample_rate: int = 0
    channels: int = 0

    @property
    def end(self) -> float:
        return self.start + self.duration


@dataclass(frozen=True)
class Probe:
    """What is in a file. `cut` means that it says of itself to be longer than it is, or stops in the middle."""

    content_type: str
    start: float  # seconds; FFmpeg counts a file's time from here
    duration: float
    streams: tuple[Stream, ...]
    cut: bool = False

    @property
    def video(self) -> Stream | None:
        return next((stream for stream in self.streams if stream.kind == "video"), None)

    @property
    def audio(self) -> Stream | None:
        return next((stream for stream in self.streams if stream.kind == "audio"), None)


def probe(path: Path, *, label: str = "file", **options) -> Probe:
    """`probe_all` of one file."""
    return probe_all({label: path}, **options)[label]


def probe_all(
    files: dict[str, Path],
    *,
    stop: Callable[[], bool | None] = lambda: False,
    on_start: Callable[[int], None] | None = None,
    on_file: Callable[[int], None] = lambda done: None,
    limits: process.Limits = PROBE_LIMITS,
) -> dict[str, Probe]:
    """What is in each file (label → path), read by one child; every packet is read, only a first picture decoded.

    Raises JobError(bad_input), naming the label, for what is no media that we take, breaks a cap or cannot be read
    within `limits`, whose seconds each file has anew. `on_file` gets the number of files done; `stop` and `on_start`
    are those of `process.run`.
    """
    work, labels = [], list(files)
    for number, (label, path) in enumerate(files.items()):
        content_type = sniff(path)
        if content_type is None:
            raise JobError(ErrorCode.bad_input, f"{label} is not a video, picture or sound that can be read here.")
        work.append((str(number), content_type))
    answers: list[str] = []
    heard_at = time.monotonic()

    def heard(line: str) -> None:
        nonlocal heard_at
        answers.append(line)
        heard_at = time.monotonic()
        on_file(len(answers))

    def stopped() -> bool | None:
        if time.monotonic() - heard_at > limits.seconds and len(answers) < len(labels):
            raise _too_much(labels[len(answers)])
        return stop()

    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-P", "-m", "jobs.engines.media", json.dumps(work)]
    whole = dataclasses.replace(
        limits,
        seconds=limits.seconds * len(files) + PROBE_LIMITS.seconds,  # `stopped` comes first and names the file
        cpu_seconds=limits.cpu_seconds * len(files),
    )
    with shown(list(files.values())) as folder:
        ended = process.run(
            argv,
            cwd=folder,
            limits=whole,
            on_line=heard,
            stop=stopped,
            on_start=on_start,
            env=environment,
            reads=(str(ROOT),),
            line_characters=65536,
        )
    found = {}
    for number, label in enumerate(labels):
        if number >= len(answers):
            if ended.returncode == 1 and "MemoryError" not in "".join(ended.tail):
                raise JobError(ErrorCode.internal_error, "The media reader failed: " + "".join(ended.tail[-1:]))
            raise _too_much(label)
        answer = json.loads(answers[number])
        if "error" in answer:
            raise JobError(ErrorCode.bad_input, f"{label} {answer['error']}.")
        streams = tuple(Stream(**stream) for stream in answer.pop("streams"))
        found[label] = Probe(streams=streams, **answer)
    return found


def _too_much(label: str) -> JobError:
    return JobError(ErrorCode.bad_input, f"{label} cannot be read within the time and memory allowed.")


@contextmanager
def shown(files: list[Path]) -> Iterator[Path]:
    """A folder that holds nothing but these files, called 0, 1, 2 …; it stands beside the first and goes afterwards.

    So the child, whose the folder is meanwhile, sees none of the others' (all uploads arrive in one folder).
    """
    beside = files[0].absolute().parent
    with tempfile.TemporaryDirectory(dir=beside, prefix="look-", ignore_cleanup_errors=True) as folder:
        for number, path in enumerate(files):
            try:
                os.link(path, Path(folder, str(number)))
            except OSError:  # another filesystem, or one without links
                shutil.copyfile(path, Path(folder, str(number)))
        yield Path(folder)


# --- the child -----------------------------------------------------------------------------------------------------


def check_caps(
    *,
    seconds: float = 0.0,
    frames: int = 0,
    fps: float = 0.0,
    width: int = 0,
    height: int = 0,
    gap: float = 0.0,
    streams: int = 0,
) -> None:
    """Raise Unfit, saying what is too much (FAULTS trap 10, S05)."""
    if streams > MAX_STREAMS:
        raise Unfit(f"has {streams} streams; at most {MAX_STREAMS} are allowed")
    if width * height > MAX_PIXELS:
        raise Unfit(f"has pictures of {width}x{height}; at most {MAX_PIXELS} pixels are allowed")
    if not seconds <= MAX_SECONDS:
        raise Unfit(f"lasts {seconds:.0f} seconds; at most {MAX_SECONDS:.0f} are allowed")
    if fps > MAX_FPS or frames > MAX_FRAMES:
        raise Unfit(f"has more than {MAX_FPS:.0f} pictures a second")
    if gap > MAX_GAP:
        raise Unfit(f"stands still for {gap:.0f} seconds; at most {MAX_GAP:.0f} are allowed")


def inspect(path: str, content_type: str) -> Probe:
    """What is in a file: its packets are read by PyAV, a still picture's pixels by libvips. Only for the child."""
    if content_type in pictures.LOADERS:
        width, height = pictures.check(path, content_type)
        codec = content_type.partition("/")[2]
        return Probe(content_type, 0.0, 0.0, (Stream("video", codec, "1/25", frames=1, width=width, height=height),))
    import av

    demuxer = ffmpeg.DEMUXERS[content_type]
    options = {"protocol_whitelist": "file", "format_whitelist": demuxer, "max_pixels": str(MAX_PIXELS)}
    try:
        # its words are not shown, so they may be in any encoding: old files' tags are Latin-1
        with av.open(f"file:{path}", format=demuxer, options=options, metadata_errors="replace") as container:
            declared = (container.duration or 0) / av.time_base
            still = content_type.startswith("image/")
            check_caps(seconds=0.0 if still else declared, streams=len(container.streams))
            known = [video for video in container.streams.video if video.codec_context]
            for video in known:
                check_caps(width=video.codec_context.width, height=video.codec_context.height)
                if not video.codec_context.width:
                    raise Unfit(f"has pictures that are damaged or of more than {MAX_PIXELS} pixels")
            times, counts, broken = _packets(container)
            turned = _rotation(container, known[0]) if known and not still else 0
            streams = tuple(_stream(stream, times[stream.index], turned) for stream in container.streams)
            if still and sum(stream.frames for stream in streams) > 1:
                raise Unfit(pictures.SEVERAL)
            ends = [stream.end for stream in streams if stream.frames]
            for found, stream in zip(streams, container.streams, strict=True):
                if found.kind == "video" and not still:
                    gap = float(_widest(times[stream.index]) * (stream.time_base or 0))
                    check_caps(frames=found.frames, seconds=found.end - found.start, fps=found.fps, gap=gap)
            first = [stream.start for stream in streams if stream.frames]
            length = max(ends, default=0.0) - min([0.0, *first])
            exact = demuxer in ("mov", "matroska")  # the others guess their duration from the bit rate
            short = exact and declared - length > max(0.25, 0.01 * declared)
            if demuxer == "mpegts":  # it never says how long it is, but it is made of packets of one size
                with open(path, "rb") as file:
                    broken = broken or Path(path).stat().st_size % (ts_packet(file.read(4096)) or 188) != 0
            counted = [s for s in container.streams if demuxer == "mov" and not _holds_samples(s)]
            fewer = any(counts[s.index] < s.frames - 1 for s in counted)
            if fewer and not broken:  # or an edit list shows but a part of it, as of clips that a phone trimmed
                options["ignore_editlist"] = "1"
                with av.open(f"file:{path}", format=demuxer, options=options, metadata_errors="replace") as whole:
                    _times, counts, broken = _packets(whole)
                fewer = any(counts[s.index] < s.frames - 1 for s in counted)
            start = (container.start_time or 0) / av.time_base
            return Probe(content_type, start, length, streams, bool(broken or short or fewer))
    except (av.FFmpegError, ValueError, OverflowError) as wrong:
        raise Unfit("cannot be read: it is damaged or cut") from wrong


def _holds_samples(stream) -> bool:
    """Whether it is plain samples, or may be: a MOV counts each as a frame, while a packet holds many."""
    context = stream.codec_context
    return stream.type == "audio" and (context is None or context.name.startswith("pcm_"))


def _rotation(container, stream) -> int:
    """Degrees by which a player turns the stream's first picture; 0 if it cannot be decoded."""
    import av

    try:
        container.seek(0)
        frame = next(container.decode(stream), None)
    except av.FFmpegError:
        return 0
    return round(frame.rotation) % 360 if frame is not None else 0


def _packets(container) -> tuple[dict[int, list[tuple[int, int]]], dict[int, int], bool]:
    """(presentation time, duration) of every packet that is shown per stream index, how many packets there are of each,
    and whether reading ended in an error. What stands before an edit list's beginning is only there to be decoded."""
    import av

    times: dict[int, list[tuple[int, int]]] = {stream.index: [] for stream in container.streams}
    counts, total, broken = dict.fromkeys(times, 0), 0, False
    try:
        for packet in container.demux():
            if packet.size:
                stamp = packet.pts if packet.pts is not None else packet.dts
                if not packet.is_discard:
                    times[packet.stream_index].append((stamp if stamp is not None else 0, packet.duration or 0))
                counts[packet.stream_index] += 1
                total += 1
                broken = broken or packet.is_corrupt  # for instance, shorter than announced
                if total > 2 * MAX_FRAMES:
                    raise Unfit("has too many pictures or sounds")
    except av.FFmpegError:
        return times, counts, True
    return times, counts, broken


def _widest(times: list[tuple[int, int]]) -> int:
    """The widest distance between two neighbouring pictures, in ticks."""
    stamps = sorted(stamp for stamp, _duration in times)
    return max((after - before for before, after in pairwise(stamps)), default=0)


def _stream(stream, times: list[tuple[int, int]], turned: int) -> Stream:
    base = stream.time_base or Fraction(1, 1000)
    stamps = sorted(stamp for stamp, _duration in times)
    start = float(stamps[0] * base) if stamps else 0.0
    length = float(max(stamp + duration for stamp, duration in times) * base) - start if times else 0.0
    cover = "attached_pic" in stream.disposition.name.lower() if stream.disposition else False
    context = stream.codec_context  # None: of a codec that nobody here knows, as the spatial sound of some phones
    kind = stream.type if stream.type in ("video", "audio") and context and not cover else "other"
    last = float(stamps[-1] * base) if stamps else 0.0
    found = Stream(kind, "", str(base), start, length, last, len(times))
    if kind == "other":
        return found
    found = dataclasses.replace(found, codec=context.codec.canonical_name)  # its `name` is the decoder's
    if kind == "audio":
        return dataclasses.replace(found, sample_rate=context.sample_rate, channels=context.channels)
    steps = {after - before for before, after in pairwise(stamps)}
    between = float((stamps[-1] - stamps[0]) * base) if stamps else 0.0
    fps = (len(stamps) - 1) / between if between else float(stream.average_rate or 0)
    if length <= between and fps:  # some formats keep no durations: the last picture is shown as long as the others
        length = between + 1 / fps
    slack = max(1, int(Fraction(1, 900) / base))  # Matroska keeps whole milliseconds
    return dataclasses.replace(
        found,
        duration=length,
        width=context.width,
        height=context.height,
        fps=fps,
        variable=bool(steps) and max(steps) - min(steps) > slack,
        rotation=turned,
        aspect=float(stream.sample_aspect_ratio or 1),
        pixel_format=context.pix_fmt or "",
    )


def main(argv: list[str]) -> None:
    import av

    av.logging.set_level(av.logging.PANIC)
    for path, content_type in json.loads(argv[1]):
        try:
            answer = dataclasses.asdict(inspect(path, content_type))
        except Unfit as unfit:
            answer = {"error": re.sub(r"[^ -~]", "", str(unfit))}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv)
