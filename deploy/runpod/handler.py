"""Jobsite's worker for RunPod serverless: draws what `RENDER_ENGINE=runpod` sends. Started by the image's CMD.

Written after docs.runpod.io, "Handler functions" (serverless/workers/handler-functions), for RunPod's SDK 1.12.
"""

import asyncio
import base64
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import runpod
from runpod.serverless.utils.rp_upload import upload_file_to_bucket

from jobs.engines import remote_worker
from jobs.errors import JobError

ENGINE = os.environ.get("WORKER_ENGINE", remote_worker.PREVIEW)  # a module with `render(run, params, image) -> Path`
INLINE_BYTES = 7_000_000  # what fits into an answer of 10 MB as base64; larger videos go to the bucket
VOLUME = Path("/runpod-volume")  # where RunPod mounts an endpoint's network volume ("Network volumes")
REMEMBERED = 86_400.0  # seconds


async def handler(job: dict[str, Any]) -> dict[str, Any]:
    """Draw one request: `{"video_base64": …}` or `{"video_url": …}`; `{"error": …}`, which makes it FAILED, if not.

    Runs beside the SDK's loop, so that a cancel reaches it: the work and its FFmpeg end with it.
    """
    stopped = threading.Event()
    work = asyncio.get_running_loop().run_in_executor(None, draw, job, stopped.is_set)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stopped.set()
        await asyncio.wait([work])
        raise


def draw(job: dict[str, Any], stop: Callable[[], bool]) -> dict[str, Any]:
    """`handler` without its loop.

    A call that was begun before under another RunPod id is refused: its caller lost our answer and sent it twice.
    RunPod's own second try of the same job is not.
    """
    given = job["input"]
    if isinstance(given, dict) and not first_time(str(given.get("call_id") or ""), job["id"]):
        return {"error": "This call was begun before; it is not drawn twice."}
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = partial(tell, job)
            video = remote_worker.draw(given, Path(folder), engine=ENGINE, report=report, stop=stop)
        except (remote_worker.BadRequest, JobError) as error:
            return {"error": str(error)}
        return deliver(video, job["id"])


def tell(job: dict[str, Any], done: float) -> None:
    """Progress for the caller: /status shows it as `output` while the job is IN_PROGRESS."""
    runpod.serverless.progress_update(job, {"progress": done})


def deliver(video: Path, job_id: str) -> dict[str, Any]:
    """The video as the answer: inline, or in the bucket of BUCKET_ENDPOINT_URL (and its keys) if it is too large."""
    if video.stat().st_size <= INLINE_BYTES:
        return {"video_base64": base64.b64encode(video.read_bytes()).decode("ascii")}
    if not os.environ.get("BUCKET_ENDPOINT_URL"):
        return {"error": "The video is too large to be sent inline; set BUCKET_ENDPOINT_URL and its keys."}
    return {"video_url": upload_file_to_bucket(f"{job_id}.mp4", str(video))}


def first_time(call_id: str, job_id: str) -> bool:
    """Whether no other RunPod job began this call: for all workers if the endpoint has a network volume, else here."""
    if not call_id:
        return True
    root = VOLUME if os.access(VOLUME, os.W_OK) else Path(tempfile.gettempdir())
    folder = root / "jobsite-calls"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if time.time() - old.stat().st_mtime > REMEMBERED:
            old.unlink(missing_ok=True)
    marker = folder / hashlib.sha256(call_id.encode()).hexdigest()
    try:
        with open(marker, "x") as new:
            new.write(job_id)
    except FileExistsError:
        return marker.read_text() == job_id
    return True


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
