"""A film looked at: an INGEST from submit to success, against `ffmpeg -i in -f null -`, which only decodes it."""

import subprocess
import time
from pathlib import Path

from django.conf import settings

from bench import Options, Row, median, turns
from bench.stage import Stage
from bench.stitch import STATUS, run, upload
from jobs import lifecycle
from jobs.engines import ffmpeg

SIZE, FPS, SCENE_SECONDS = "1920x1080", 25, 5


def measure(stage: Stage, options: Options) -> list[Row]:
    """Medians of both sides in turns; the film is uploaded before the clock starts."""
    stage.worker()
    scenes = 1 if options.quick else 8
    folder = settings.HOME / "ingest-bench"
    folder.mkdir()
    film = make_film(folder / "film.mp4", scenes)
    params = {"source_type": "upload", "upload": f"upload:{upload(stage, film)}"}

    def ours() -> float:
        began = time.perf_counter()
        job, _ = lifecycle.submit(stage.owner.pk, "INGEST", params)
        while (status := stage.database.execute(STATUS, [job.pk]).fetchone()[0]) in ("QUEUED", "RUNNING"):
            time.sleep(0.001)
        if status != "SUCCEEDED":
            raise RuntimeError(f"the ingest ended {status}")
        return time.perf_counter() - began

    def reference() -> float:
        began = time.perf_counter()
        command = [ffmpeg.bundled(), "-hide_banner", "-nostdin", "-v", "error", "-i", str(film), "-f", "null", "-"]
        subprocess.run(command, check=True)
        return time.perf_counter() - began

    ours(), reference()  # files and programs are in memory from here on, for both
    mine, bare = turns(options.rounds, ours, reference)
    return [Row(f"ingest {scenes * SCENE_SECONDS} s of {SIZE}", median(mine), median(bare), "≤ 1.5", "s")]


def make_film(path: Path, scenes: int) -> Path:
    """A film with a cut every five seconds, some grain as a camera has it, and sound."""
    length = scenes * SCENE_SECONDS
    cuts = f"hue=h=floor(t/{SCENE_SECONDS})*70,noise=alls=6:allf=t"
    picture = f"testsrc2=s={SIZE}:r={FPS}:d={length},{cuts}"
    sound = f"anoisesrc=color=pink:amplitude=0.3:duration={length}:sample_rate=48000"
    encode = ["-c:v", "libx264", "-preset", "veryfast", "-b:v", "8M", "-pix_fmt", "yuv420p", "-c:a", "aac", "-ac", "2"]
    run("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, *encode, str(path))
    return path
