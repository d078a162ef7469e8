"""Small real media files for tests, made once a process by the FFmpeg that the platform runs."""

import functools
import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg


@functools.cache
def made(*arguments: str, suffix: str = ".mp4") -> bytes:
    """What FFmpeg writes for these arguments (inputs and codecs)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"made{suffix}"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *arguments, str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)
        return path.read_bytes()


def clip(seconds: float = 0.5) -> bytes:
    """A video of 64x36 with its index in front, so that a half of it can still be opened."""
    picture = f"testsrc2=s=64x36:r=10:d={seconds}"
    return made("-f", "lavfi", "-i", picture, "-pix_fmt", "yuv420p", "-movflags", "+faststart")


def sound() -> bytes:
    """An MP4 without a video stream."""
    return made("-f", "lavfi", "-i", "sine=d=0.5", "-c:a", "aac")


def picture() -> bytes:
    """A PNG."""
    return made("-f", "lavfi", "-i", "testsrc2=s=16x16:d=1", "-frames:v", "1", suffix=".png")
