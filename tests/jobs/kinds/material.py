"""Media for tests: tiny clips made by FFmpeg when a test first asks for them, once a session."""

import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from jobs.engines import ffmpeg

H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
AAC = ["-c:a", "aac"]


def picture(size="128x72", rate=25, seconds=1.0, source="testsrc2") -> list[str]:
    return ["-f", "lavfi", "-i", f"{source}=s={size}:r={rate}:d={seconds}"]


def tone(seconds=1.0, rate=48000) -> list[str]:
    return ["-f", "lavfi", "-i", f"sine=d={seconds}:r={rate}"]


RECIPES = {
    "plain.mp4": [*picture(), *tone(), *H264, *AAC],
    "longer.mp4": [*picture(seconds=2), *tone(2), *H264, *AAC],
    "silent.mp4": [*picture(), *H264],
    "quiet.mp4": [*picture(), "-f", "lavfi", "-i", "anullsrc=d=1", *H264, *AAC],
    "mirrored.mp4": [*picture(), *tone(), "-vf", "hflip,negate", *H264, *AAC],
    "other-settings.mp4": [*picture(), *tone(), "-c:v", "libx264", "-preset", "medium", "-pix_fmt", "yuv420p", *AAC],
    "larger.mp4": [*picture("200x200", 30), *tone(1, 44100), *H264, *AAC],
    "upright.mp4": [*picture("72x128"), *tone(), *H264, *AAC],
    "rotated.mp4": ["-display_rotation", "90", "-i", "upright.mp4", "-c", "copy"],
    "tilted.mp4": ["-display_rotation", "45", "-i", "upright.mp4", "-c", "copy"],
    "long.mov": [*picture(seconds=4), *tone(4), *H264, *AAC],
    "trimmed.mov": ["-ss", "2.5", "-i", "long.mov", "-c", "copy"],  # an edit list hides what is before, as phones do
    "vp8-small.webm": [*picture("64x36"), *tone(), "-c:v", "libvpx", "-c:a", "libopus"],
    "slow.mp4": [*picture(rate="1/5", seconds=20, source="smptebars"), *H264],
    "variable.mp4": [
        *picture(seconds=2),
        *tone(2),
        "-vf",
        "select=lt(n\\,10)+not(mod(n\\,3))",
        "-fps_mode",
        "vfr",
        *H264,
        *AAC,
    ],
    "short-sound.mp4": [*picture(), *tone(0.5), *H264, *AAC],
    "long-sound.mp4": [*picture(), *tone(2), *H264, *AAC],
    "front.mp4": [*picture(seconds=2), *tone(2), *H264, *AAC, "-movflags", "+faststart"],
    "fragments.mp4": [*picture(), *tone(), *H264, *AAC, "-movflags", "frag_keyframe+empty_moov"],
    "hevc.mp4": [*picture(), *tone(), "-c:v", "libx265", "-x265-params", "log-level=error", "-tag:v", "hvc1", *AAC],
    "pcm.mov": [*picture(), *tone(), *H264, "-c:a", "pcm_s16le"],
    "h264.mkv": [*picture(), *tone(), *H264, *AAC],
    "h264.ts": [*picture(), *tone(), *H264, *AAC],
    "camcorder.mts": [*picture(), *tone(), *H264, *AAC, "-f", "mpegts", "-mpegts_m2ts_mode", "1"],
    "vp8.webm": [*picture(), *tone(), "-c:v", "libvpx", "-c:a", "libopus"],
    "mpeg4.avi": [*picture(), *tone(), "-c:v", "mpeg4", "-c:a", "mp3"],
    "tone.mp3": [*tone(5)],
    "tone.m4a": [*tone(0.5), *AAC],
    "tone.wav": [*tone()],
    "tone.flac": [*tone()],
    "tone.ogg": [*tone(), "-c:a", "libvorbis"],
    "tone.aac": [*tone(), *AAC],
    "still.png": [*picture("300x200"), "-frames:v", "1"],
    "still.jpg": [*picture("300x200"), "-frames:v", "1"],
    "still.webp": [*picture("300x200"), "-frames:v", "1"],
    "still.tif": [*picture("300x200"), "-frames:v", "1"],
    "still.gif": [*picture("300x200"), "-frames:v", "1"],
    "moving.gif": [*picture("64x64", 10)],
    "huge.png": ["-f", "lavfi", "-i", "color=s=15000x15000:d=1", "-pix_fmt", "monob", "-frames:v", "1"],
    "many-streams.mp4": [*tone(0.1), *["-map", "0:a"] * 20, *AAC],
    "gap.mp4": [*picture("32x32", 25, 0.4), "-vf", "setpts=PTS+gte(N\\,5)*3600/TB", "-fps_mode", "vfr", *H264],
    "gap.mkv": [*picture("32x32", 25, 0.4), "-vf", "setpts=PTS+gte(N\\,5)*3600/TB", "-fps_mode", "vfr", *H264],
    "rapid.mp4": [*picture("32x32", 1000, 0.1), *H264],
}


class Material:
    """`material("plain.mp4")` is the path of that clip."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            for source in RECIPES.keys() & set(RECIPES[name]):
                self(source)
            command = [ffmpeg.bundled(), "-v", "error", "-nostdin", "-y", *RECIPES[name], name]
            subprocess.run(command, cwd=self.folder, check=True)
        return path

    def half(self, name: str, share=0.5) -> Path:
        """The first part of that file, with its ending."""
        whole = self(name)
        path = self.folder / f"half-{share}-{name}"
        path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
        return path

    def call(self) -> Path:
        """Two seconds of VP8 whose size changes in the middle, as where a call was recorded."""
        path, parts = self.folder / "call.webm", [self("vp8.webm"), self("vp8-small.webm")]
        (self.folder / "call.txt").write_text("".join(f"file '{part.name}'\n" for part in parts))
        command = [ffmpeg.bundled(), "-v", "error", "-y", "-f", "concat", "-i", "call.txt", "-c", "copy", path.name]
        subprocess.run(command, cwd=self.folder, check=True)
        return path

    def unknown(self, name: str, entry: bytes) -> Path:
        """That MP4 with a codec that nobody knows in the track of this sample entry (`mp4a`, `avc1`)."""
        path = self.folder / f"unknown-{entry.decode()}-{name}"
        path.write_bytes(self(name).read_bytes().replace(entry, b"apac").replace(b"esds", b"dapa"))
        return path

    def damaged(self, name: str) -> Path:
        """That MP4 with a hole of zeros in its pictures; its index is whole."""
        path = self.folder / f"damaged-{name}"
        whole = bytearray(self(name).read_bytes())
        begin = whole.index(b"mdat") + 4
        whole[begin : begin + 20_000] = bytes(20_000)
        path.write_bytes(whole)
        return path


@pytest.fixture(scope="session")
def material(tmp_path_factory) -> Material:
    return Material(tmp_path_factory.mktemp("material"))


def pictures(path: Path) -> list[bytes]:
    """Every picture of a video as grey bytes, in the order shown."""
    with av.open(str(path)) as container:
        return [bytes(frame.reformat(format="gray").planes[0]) for frame in container.decode(video=0)]


def difference(one: bytes, other: bytes) -> float:
    """Mean difference of two pictures, 0 to 255."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def loudness(path: Path) -> Callable[[float, float], float]:
    """How loud the sound is from one second to another: the square root of its mean square."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("s16", "mono", 48_000)
        frames = [new for frame in container.decode(audio=0) for new in resampler.resample(frame)]
    samples = memoryview(b"".join(bytes(frame.planes[0])[: 2 * frame.samples] for frame in frames)).cast("h")

    def between(begin: float, end: float) -> float:
        part = samples[round(begin * 48_000) : round(end * 48_000)]
        return math.sqrt(sum(sample * sample for sample in part) / len(part))

    return between
