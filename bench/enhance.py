"""A picture to 4K: an ENHANCE from submit to success, against the same filter called in this process."""

import time

from django.conf import settings

from bench import Options, Row, median, turns
from bench.stage import Stage
from bench.stitch import STATUS, upload
from jobs import kinds, lifecycle
from jobs.engines import upscale
from tests.jobs.kinds import photos

WIDTH, HEIGHT = 2048, 1536


def measure(stage: Stage, options: Options) -> list[Row]:
    """Medians of both sides in turns; the picture is uploaded before the clock starts."""
    stage.worker()
    folder = settings.HOME / "pictures"
    folder.mkdir()
    truth = photos.drawn(WIDTH // 8, HEIGHT // 8).resize(8)
    source = photos.write(photos.degraded(truth, shrink=1, blur=0.7, noise=6), folder / "photo.jpg")
    chosen = {"tier": "1K" if options.quick else "4K", "format": "keep"}
    kind = kinds.get("ENHANCE")
    form = kind.Params(data={"image": f"upload:{upload(stage, source)}"} | chosen)
    form.is_valid(raise_exception=True)
    params = dict(form.validated_data)
    side = 1024 if options.quick else 4096
    task = params | {"path": str(source), "content_type": "image/jpeg", "as_type": "image/jpeg", "side": side}
    task |= {"label": "image", "into": str(folder / "picture.jpg"), "model": ""}

    def ours() -> float:
        began = time.perf_counter()
        job, _ = lifecycle.submit(stage.owner.pk, kind.name, params)
        while (status := stage.database.execute(STATUS, [job.pk]).fetchone()[0]) in ("QUEUED", "RUNNING"):
            time.sleep(0.01)  # asking more often would take processor time from the libvips that is measured
        if status != "SUCCEEDED":
            raise RuntimeError(f"the picture ended {status}")
        return time.perf_counter() - began

    def reference() -> float:
        began = time.perf_counter()
        upscale.work(task, lambda fraction: None)
        return time.perf_counter() - began

    ours(), reference()  # files and programs are in memory from here on, for both
    mine, bare = turns(options.rounds, ours, reference)
    return [Row(f"enhance {WIDTH}x{HEIGHT} to {chosen['tier']}", median(mine), median(bare), "≤ 1.2", "s")]
