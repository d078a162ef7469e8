"""The engine that needs no GPU: draws a real H.264 video from a prompt with FFmpeg, the same bytes for the same seed.

Colours, motion and shape come from a hash of prompt and seed; an image, if given, is panned and zoomed over. The whole
prompt stands on the first two seconds. Nothing of the user's is in a filter: the prompt is a file (`textfile`,
`expansion=none`), the rest are numbers made here (FAULTS trap 6).
"""

import hashlib
import shutil
import textwrap
from pathlib import Path
from typing import Any, Protocol

from jobs.engines import ffmpeg, media

FONT = Path(__file__).parent / "fonts" / "DejaVuSansMono.ttf"
GLYPH_WIDTH = 0.6021  # of the font size: the font is monospaced, so text is laid out by counting
LINE_HEIGHT = 1.1641
TEXT_SECONDS = 2
PATTERNS = ("linear", "radial", "circular", "spiral", "square")
COMMENT = "Jobsite preview: drawn on the CPU, not by a model"


class Run(Protocol):
    """What this engine needs of a run."""

    workdir: Path

    def ffmpeg(self, args: list[str], *, seconds: float, start: float = 0.0, end: float = 1.0) -> None: ...


def render(run: Run, params: dict[str, Any], image: Path | None = None) -> Path:
    """Draw `params` (prompt, seconds, fps, width, height, seed), over `image` if given; the path of a finished MP4.

    The image must have been probed. Raises what `run.ffmpeg` raises.
    """
    video = run.workdir / "preview.mp4"
    width, height, fps = params["width"], params["height"], params["fps"]
    frames = frame_count(params)
    shutil.copyfile(FONT, run.workdir / "font.ttf")
    size, lines = fit(params["prompt"], width, height)
    (run.workdir / "prompt.txt").write_text("\n".join(lines), encoding="utf-8")
    numbers = hashlib.sha256(f"{params['seed']}\n{params['prompt']}".encode()).digest()
    if image:
        background = ffmpeg.picture(image, media.sniff(image) or "")
        drawn = _pan(numbers, width, height, fps, frames)
    else:
        background = ["-f", "lavfi", "-i", _gradient(numbers, width, height, fps)]
        drawn = f"hue=h={30 + numbers[0] % 60}*t"
    bar = max(2, height // 60)
    graph = ";".join(
        [
            f"[0:v]{drawn},setsar=1[ground]",
            f"color=0x{numbers[1:4].hex()}:s={_even(width / 6)}x{_even(height / 6)}:r={fps}[block]",
            f"color=white:s={width}x{bar}:r={fps}[bar]",
            f"[ground][block]overlay=x=(W-w)*(0.5+0.5*sin({1 + numbers[4] % 3}*t+{numbers[5]}))"
            f":y=(H-h)*(0.5+0.5*cos({1 + numbers[6] % 3}*t+{numbers[7]}))[moving]",
            f"[moving][bar]overlay=x=-w+w*(n+1)/{frames}:y=H-h[timed]",
            f"[timed]drawtext=fontfile=font.ttf:textfile=prompt.txt:expansion=none:fontsize={size}:fontcolor=white"
            f":x=(w-text_w)/2:y=(h-text_h)/2:box=1:boxcolor=black@0.75:boxborderw={max(1, size // 3)}"
            f":enable=lt(t\\,{TEXT_SECONDS}),drawtext=fontfile=font.ttf:text=preview:fontsize={max(6, height // 24)}"
            f":fontcolor=white@0.8:x=w-text_w-{bar}:y=h-text_h-{2 * bar}:enable=gte(t\\,{TEXT_SECONDS}),format=yuv420p",
        ]
    )
    args = [*background, "-filter_complex", graph, "-an", "-frames:v", str(frames), "-r", str(fps)]
    args += ["-c:v", "libx264", "-preset", "veryfast", "-crf", "21", "-threads", "2", "-g", str(2 * fps)]
    args += ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-movflags", "+faststart"]
    args += ["-metadata", "title=Jobsite preview", "-metadata", f"comment={COMMENT}", video.name]
    run.ffmpeg(args, seconds=frames / fps)
    return video


def frame_count(params: dict[str, Any]) -> int:
    """How many pictures the video of these params has."""
    return max(1, round(params["seconds"] * params["fps"]))


def fit(prompt: str, width: int, height: int) -> tuple[int, list[str]]:
    """The largest font size (pixels) at which the whole prompt fits into the picture, and its lines."""
    for size in range(max(4, min(height // 6, width // 12)), 1, -1):
        columns = int(width * 0.94 / (size * GLYPH_WIDTH))
        rows = int(height * 0.92 / (size * LINE_HEIGHT))
        lines = [
            line
            for paragraph in prompt.split("\n")
            for line in textwrap.wrap(paragraph, max(1, columns), replace_whitespace=False) or [""]
        ]
        if columns and len(lines) <= rows:
            break
    return size, lines


def _gradient(numbers: bytes, width: int, height: int, fps: int) -> str:
    colours = ":".join(f"c{n}=0x{numbers[8 + 3 * n : 11 + 3 * n].hex()}" for n in range(4))
    pattern = PATTERNS[numbers[20] % len(PATTERNS)]
    seed = int.from_bytes(numbers[21:25], "big") >> 1
    return (
        f"gradients=s={width}x{height}:r={fps}:n=4:{colours}:seed={seed}:type={pattern}:speed=0.0{2 + numbers[25] % 4}"
    )


def _pan(numbers: bytes, width: int, height: int, fps: int, frames: int) -> str:
    """The image, filling the picture, slowly nearer and from one side to the other."""
    across, down = ("on", f"({frames}-on)")[numbers[26] % 2], ("on", f"({frames}-on)")[numbers[27] % 2]
    shape = f"max(1\\,min(iw\\,ih*{width}/{height})):max(1\\,min(ih\\,iw*{height}/{width}))"
    return (  # cropped first: a long, thin picture would be too large once it is enlarged to fill the other side
        f"trim=end_frame=1,format=rgb24,crop={shape},scale={2 * width}:{2 * height},"
        f"zoompan=z=1.15+0.25*on/{frames}:x=(iw-iw/zoom)*{across}/{frames}:y=(ih-ih/zoom)*{down}/{frames}"
        f":d={frames}:s={width}x{height}:fps={fps}"
    )


def _even(number: float) -> int:
    return max(2, round(number / 2) * 2)
