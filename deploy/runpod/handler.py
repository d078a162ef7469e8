"""Jobsite's worker for RunPod serverless: does what `RENDER_ENGINE=runpod` and `ENHANCE_ENGINE=runpod` send.

Started by the image's CMD. Written after docs.runpod.io, "Handler functions" (serverless/workers/handler-functions),
for RunPod's SDK 1.12.
"""

import asyncio
import base64
import contextlib
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
MODEL = os.environ.get("WORKER_UPSCALER_MODEL", "")  # of ENHANCE: the path of an ONNX file; empty: resampling
INLINE_BYTES = 7_000_000  # what fits into an answer of 10 MB as base64; what is larger goes to the bucket
VOLUME = Path("/runpod-volume")  # where RunPod mounts an endpoint's network volume ("Network volumes")
REMEMBERED = 86_400.0  # seconds


async def handler(job: dict[str, Any]) -> dict[str, Any]:
    """Do one request: `{"video_base64": …}` or `{"video_url": …}` (`picture_…` for ENHANCE); `{"error": …}` is FAILED.

    Runs beside the SDK's loop, so that a cancel reaches it: the work and its FFmpeg end with it.
    """
    stopped = threading.Event()
    work = asyncio.get_running_loop().run_in_executor(None, do, job, stopped.is_set)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stopped.set()
        await asyncio.wait([work])
        raise


def do(job: dict[str, Any], stop: Callable[[], bool]) -> dict[str, Any]:
    """`handler` without its loop.

    A call that was begun before under another RunPod id is refused: its caller lost our answer and sent it twice.
    RunPod's own second try of the same job is not.
    """
    given = job["input"]
    if isinstance(given, dict) and not first_time(str(given.get("call_id") or ""), job["id"]):
        return {"error": "This call was begun before; it is not done twice."}
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = partial(tell, job)
            made = remote_worker.work(given, Path(folder), engine=ENGINE, model=MODEL, report=report, stop=stop)
        except (remote_worker.BadRequest, JobError) as error:
            return {"error": str(error)}
        return deliver(made, "picture" if given["task"] == "ENHANCE" else "video", job["id"])


def tell(job: dict[str, Any], done: float) -> None:
    """Progress for the caller: /status shows it as `output` while the job is IN_PROGRESS."""
    runpod.serverless.progress_update(job, {"progress": done})


def deliver(made: Path, word: str, job_id: str) -> dict[str, Any]:
    """The result as the answer: inline, or in the bucket of BUCKET_ENDPOINT_URL (and its keys) if it is too large."""
    if made.stat().st_size <= INLINE_BYTES:
        return {f"{word}_base64": base64.b64encode(made.read_bytes()).decode("ascii")}
    if not os.environ.get("BUCKET_ENDPOINT_URL"):
        return {"error": "The result is too large to be sent inline; set BUCKET_ENDPOINT_URL and its keys."}
    return {f"{word}_url": upload_file_to_bucket(job_id, str(made))}


def first_time(call_id: str, job_id: str) -> bool:
    """Whether no other RunPod job began this call: for all workers if the endpoint has a network volume, else here."""
    if not call_id:
        return True
    root = VOLUME if os.access(VOLUME, os.W_OK) else Path(tempfile.gettempdir())
    folder = root / "jobsite-calls"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another worker tidies up the same volume
            if time.time() - old.stat().st_mtime > REMEMBERED:
                old.unlink()
    marker = folder / hashlib.sha256(call_id.encode()).hexdigest()
    try:
        with open(marker, "x") as new:
            new.write(job_id)
    except FileExistsError:
        return marker.read_text() == job_id
    return True


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
