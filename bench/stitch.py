"""Clips that match, joined: a STITCH from submit to success, against `ffmpeg -f concat -c copy` of the same files."""

import hashlib
import shutil
import subprocess
import time
from pathlib import Path

from django.conf import settings

from bench import Options, Row, median, turns
from bench.stage import Stage
from jobs import lifecycle, uploads
from jobs.engines import ffmpeg

SIZE, FPS = "1280x720", 24


def measure(stage: Stage, options: Options) -> list[Row]:
    """Medians of both sides in turns; clips are uploaded before the clock starts."""
    stage.worker()
    count, seconds = (3, 1) if options.quick else (12, 5)
    folder = settings.HOME / "clips"
    folder.mkdir()
    clips = [make_clip(folder / f"clip{number}.mp4", number, seconds) for number in range(count)]
    params = {"clips": [f"upload:{upload(stage, clip)}" for clip in clips]}
    listing = folder / "list.txt"
    listing.write_text("".join(f"file '{clip}'\n" for clip in clips))

    def ours() -> float:
        began = time.perf_counter()
        job, _ = lifecycle.submit(stage.owner.pk, "STITCH", params)
        while (status := stage.database.execute(STATUS, [job.pk]).fetchone()[0]) in ("QUEUED", "RUNNING"):
            time.sleep(0.001)
        if status != "SUCCEEDED":
            raise RuntimeError(f"the stitch ended {status}")
        return time.perf_counter() - began

    def reference() -> float:
        began = time.perf_counter()
        run("-f", "concat", "-safe", "0", "-i", str(listing), "-c", "copy", str(folder / "film.mp4"))
        return time.perf_counter() - began

    ours(), reference()  # files and programs are in memory from here on, for both
    mine, bare = turns(options.rounds * 2, ours, reference)
    size = sum(clip.stat().st_size for clip in clips) / 1e6
    return [Row(f"stitch {count * seconds} s, {size:.0f} MB, clips match", median(mine), median(bare), "≤ 1.3", "s")]


STATUS = "SELECT status FROM jobs_job WHERE id = %s"


def make_clip(path: Path, number: int, seconds: int) -> Path:
    """A clip with pictures that move, and sound."""
    picture = f"testsrc2=s={SIZE}:r={FPS}:d={seconds},hue=h={30 * number}"
    sound = f"sine=frequency={200 + 50 * number}:sample_rate=48000:duration={seconds}"
    encode = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-ac", "2"]
    run("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, *encode, str(path))
    return path


def run(*args: str) -> None:
    subprocess.run([ffmpeg.bundled(), "-hide_banner", "-nostdin", "-v", "error", "-y", *args], check=True)


def upload(stage: Stage, clip: Path) -> object:
    """Take the clip in as the user's upload; its id."""
    copy = clip.with_suffix(".upload")
    shutil.copyfile(clip, copy)
    digest = hashlib.sha256(clip.read_bytes()).hexdigest()
    return uploads.take_in(stage.owner.pk, path=copy, sha256=digest, name=clip.name).pk
