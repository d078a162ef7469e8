"""Small real media files for tests, made once a process by the FFmpeg that the platform runs."""

import functools
import io
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


def no_pictures() -> bytes:
    """A Matroska that announces a video stream, of which no picture comes."""
    import av

    written = io.BytesIO()
    with av.open(io.BytesIO(sound())) as source, av.open(written, "w", format="matroska") as target:
        video = target.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 36, "yuv420p"
        video.codec_context.open()
        audio = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:  # the last one is empty
                packet.stream = audio
                target.mux(packet)
    return written.getvalue()


def picture() -> bytes:
    """A PNG."""
    return made("-f", "lavfi", "-i", "testsrc2=s=16x16:d=1", "-frames:v", "1", suffix=".png")
