"""The ingestion queue's document (seed 003): its calls with X-Admin-Key, and its worker, which needs no broker."""

import io
import json
import re
import subprocess
import sys

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from PIL import Image, ImageColor

from jobs.engines.process import walls
from jobs.models import Job
from tests import media_files
from tests.faults.rig import children_of
from tests.waiting import until

ENQUEUE = '{{"source_type": "s3", "s3_key": "{}"}}'


@pytest.fixture
def enqueue(queue_calls):
    """enqueue("videos/a.mp4") → the answer's status and JSON; the video is there unless told otherwise."""

    def make(key: str, *, there: bool = True):
        if there and not default_storage.exists(key):
            default_storage.save(key, ContentFile(media_files.clip()))
        return queue_calls("POST", "/api/ingest/enqueue", ENQUEUE.format(key))

    return make


@pytest.fixture
def worker(platform):
    """worker("--once", …) → a started `manage.py worker`, whose `communicate()` gives what it said."""
    started = []

    def start(*arguments: str) -> subprocess.Popen:
        command = [sys.executable, "manage.py", "worker", *arguments]
        env = platform.env | {"JOB_BACKOFF_INITIAL": "0.05", "JOB_BACKOFF_MAX": "0.05"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=settings.BASE_DIR, env=env, **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def said(process: subprocess.Popen, seconds: float = 60) -> str:
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    return out


def test_enqueue_once_run_once_and_see_it(queue_calls, ann_calls, enqueue, worker):
    status, first = enqueue("videos/test-ad.mp4")
    assert (status, first["status"], first["already_existed"]) == (201, "QUEUED", False)
    assert enqueue("videos/test-ad.mp4")[1] == {**first, "already_existed": True}
    assert ann_calls("GET", "/api/ingest/stats")[0] == 403
    listed = queue_calls("GET", "/api/ingest/jobs?stats=true")[1]
    assert [job["id"] for job in listed["jobs"]] == [first["job_id"]]
    assert listed["stats"]["by_status"]["QUEUED"] == listed["stats"]["total"] == 1
    out = said(worker("--once", "--limit", "1"))
    short = first["job_id"][:8] + "..."
    for line in (
        "Worker Starting\n",
        r"Worker ID: \S+-\d+-[0-9a-f]{6}\n",
        "Worker ready - starting poll loop\n",
        rf"Processing job {re.escape(short)} \(attempt 1/5\): s3:videos/test-ad.mp4\n",
        rf"Job {re.escape(short)} succeeded in \d+\.\ds: ad_id={first['job_id']}\n",
        "Jobs processed: 1\nJobs succeeded: 1\nJobs failed: 0\n",
    ):
        assert re.search(line, out), (line, out)
    done = queue_calls("GET", f"/api/ingest/jobs/{first['job_id']}")[1]
    assert (done["status"], done["stage"], done["attempts"]) == ("SUCCEEDED", "succeeded", 1)
    assert done["output"]["ad_id"] == first["job_id"] and "result.json" in done["output"]["files"]
    answer = queue_calls("GET", "/api/ingest/stats")[1]
    assert answer["stats"]["by_status"]["SUCCEEDED"] == 1 and answer["health"] == "healthy"
    assert answer["summary"] == {"running": 0, "pending": 0, "failed": 0, "has_dead_letter": False}


def test_a_video_that_is_not_there_is_retried_five_times_then_retried_by_hand(queue_calls, enqueue, worker):
    job_id = enqueue("nonexistent/fake-video.mp4", there=False)[1]["job_id"]
    path = f"/api/ingest/jobs/{job_id}"
    assert "Jobs failed: 1" in said(worker("--once", "--limit", "1"))
    job = queue_calls("GET", path)[1]
    assert (job["status"], job["attempts"]) == ("RETRY", 1) and job["run_after"]
    looping = worker("--poll-interval", "0.1")
    failed = queue_calls.wait(path, lambda answer: answer["status"] == "FAILED")
    assert (failed["attempts"], failed["max_attempts"]) == (5, 5)
    looping.terminate()
    assert "Jobs failed: 4" in said(looping, 20)
    stats = queue_calls("GET", "/api/ingest/stats")[1]
    assert (stats["health"], stats["summary"]["has_dead_letter"]) == ("degraded", True)
    assert queue_calls("GET", "/api/ingest/jobs?status=FAILED")[1]["jobs"][0]["id"] == job_id
    status, answer = queue_calls("POST", path, '{"action": "retry"}')
    assert (status, answer["success"], answer["job"]["status"]) == (200, True, "QUEUED")
    status, answer = queue_calls("POST", path, '{"action": "cancel"}')
    assert (status, answer["success"], answer["message"]) == (200, True, "Job cancelled successfully")
    assert queue_calls("POST", path, '{"action": "dance"}')[1]["errors"][0]["field"] == "action"


def test_two_workers_share_five_jobs_and_each_is_run_once(queue_calls, enqueue, worker):
    for number in range(1, 6):
        enqueue(f"videos/test-{number}.mp4")
    workers = [worker("--poll-interval", "0.2", "--concurrency", "2"), worker("--poll-interval", "0.2")]
    most = 0

    def ended():
        nonlocal most
        most = max(most, Job.objects.filter(status="RUNNING").count())
        return Job.objects.filter(status="SUCCEEDED").count() == 5

    until(ended, seconds=60)
    for process in workers:
        process.terminate()
    outs = [said(process) for process in workers]
    assert sum(int(re.search(r"Jobs succeeded: (\d+)", out)[1]) for out in outs) == 5
    jobs = queue_calls("GET", "/api/ingest/jobs?limit=10")[1]["jobs"]
    assert {job["attempts"] for job in jobs} == {1} and all(job["locked_by"] for job in jobs)
    assert most <= 3
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, locked_by, status FROM ingestion_jobs WHERE status = 'SUCCEEDED'"
            " ORDER BY completed_at DESC LIMIT 10"
        )
        assert len({row[1] for row in cursor.fetchall()}) >= 1


def test_a_worker_that_is_asked_to_end_hands_its_job_back(platform, queue_calls, enqueue, worker):
    platform.env["FFMPEG"] = platform.slow_ffmpeg()
    default_storage.save("videos/long.mp4", ContentFile(media_files.clip(seconds=20)))
    job_id = enqueue("videos/long.mp4")[1]["job_id"]
    process = worker()
    path = f"/api/ingest/jobs/{job_id}"
    running = queue_calls.wait(path, lambda answer: answer["stage"] == "pipeline_running")
    assert running["last_heartbeat_at"]
    slots = children_of(process.pid)
    process.terminate()
    assert "Jobs processed: 1" in said(process, 40)
    handed = queue_calls("GET", path)[1]
    assert (handed["status"], handed["attempts"]) == ("RETRY", 0)
    assert not [pid for pid in slots if pid in children_of(1)]


# Colours far apart, one a scene, and how many seconds each stands.
SCENES = {
    "red": 0.8,
    "white": 1.2,
    "blue": 0.72,
    "yellow": 1.0,
    "black": 0.92,
    "cyan": 1.12,
    "maroon": 0.8,
    "lime": 1.0,
}


def test_a_film_of_many_scenes_through_a_real_worker_and_its_walls(platform, ann_calls):
    """Its pictures are the walls' user's files, some under two names: what is published must outlive all of that."""
    platform.worker(slots=1)
    if walls().own_user == "own":
        assert "own user for ffmpeg" not in platform.log("worker")
    inputs = [f"-f lavfi -i color={name}:s=96x54:r=25:d={seconds}".split() for name, seconds in SCENES.items()]
    joined = ["-filter_complex", f"concat=n={len(SCENES)}", "-pix_fmt", "yuv420p"]
    film = media_files.made(*[word for words in inputs for word in words], *joined)
    upload = ann_calls.upload("/api/uploads/", "film.mp4", film)[1]["id"]
    body = json.dumps({"kind": "INGEST", "params": {"source_type": "upload", "upload": f"upload:{upload}"}})
    job = ann_calls("POST", "/api/jobs/", body, Content_Type="application/json")[1]
    done = ann_calls.wait(f"/api/jobs/{job['id']}/", lambda answer: answer["status"] in ("SUCCEEDED", "FAILED"))
    assert done["status"] == "SUCCEEDED", done["error"]
    files = {output["name"]: ann_calls.download(output["url"]) for output in done["outputs"]}
    result = json.loads(files.pop("result.json"))
    placed = [sum(list(SCENES.values())[:number]) for number in range(len(SCENES))]
    assert [scene["start"] for scene in result["scenes"]] == pytest.approx(placed, abs=0.04)
    assert set(files) == {"contact_sheet.jpg", *(f"keyframe-{number:03d}.jpg" for number in range(1, 9))}
    for name, colour in zip(sorted(files)[1:], SCENES, strict=True):  # each shows its own scene
        picture = Image.open(io.BytesIO(files[name])).convert("RGB")
        assert picture.size == (96, 54)
        assert picture.getpixel((48, 27)) == pytest.approx(ImageColor.getrgb(colour), abs=12), (name, colour)
    Image.open(io.BytesIO(files["contact_sheet.jpg"])).verify()
