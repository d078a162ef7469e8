"""`deploy/runpod`: the handler in its own folder, with nothing but what the image holds, under RunPod's own SDK."""

import base64
import importlib.util
import json
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import pyvips
from django.conf import settings

from jobs import procfs
from jobs.engines import mp4
from tests import media_files
from tests.waiting import until

ROOT = Path(settings.BASE_DIR)
DOCKERFILE = ROOT / "deploy" / "runpod" / "Dockerfile"
GIVEN = {"task": "RENDER", "params": {"prompt": "A lake", "seconds": 1, "fps": 8, "width": 64, "height": 64, "seed": 0}}
COMPILED = shutil.ignore_patterns("__pycache__")  # other processes write there meanwhile
SLOW = GIVEN | {"params": GIVEN["params"] | {"seconds": 60, "fps": 60, "width": 640, "height": 360}}


class Cloud(ThreadingHTTPServer):
    """RunPod as its SDK 1.12 sees it from inside (runpod/serverless/modules/rp_job.py, rp_http.py): hands out jobs,
    takes results and progress, and says which jobs to stop."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Inside)
        self.jobs: queue.Queue = queue.Queue()
        self.stops: queue.Queue = queue.Queue()
        self.told: dict[str, list[dict]] = {}

    def run(self, job_id: str, given) -> dict:
        """The result of a job that the worker is given."""
        self.jobs.put({"id": job_id, "input": given})
        return until(lambda: self.result(job_id), seconds=40)

    def result(self, job_id: str) -> dict | None:
        return next((said for said in self.told.get(job_id, []) if said.get("status") != "IN_PROGRESS"), None)

    def progress(self, job_id: str) -> list[float]:
        said = self.told.get(job_id, [])
        return [one["output"]["progress"] for one in said if one.get("status") == "IN_PROGRESS"]


class Inside(BaseHTTPRequestHandler):
    server: Cloud

    def log_message(self, *_):
        pass

    def do_GET(self):
        waiting = self.server.jobs if "/job-take/" in self.path else self.server.stops
        try:
            found = waiting.get(timeout=0.3)
        except queue.Empty:
            self.send_response(204)
            self.end_headers()
            return
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.told.setdefault(self.path.split("/")[2].partition("?")[0], []).append(said)
        self.send_response(200)
        self.end_headers()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The files of the image, where its COPY lines put them."""
    folder = tmp_path_factory.mktemp("image")
    for line in DOCKERFILE.read_text().splitlines():
        if line.startswith("COPY "):
            *sources, target = shlex.split(line)[1:]
            for source in map(ROOT.joinpath, sources):
                place = folder / target / source.name if target.endswith(("/", ".")) else folder / target
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(source, place, ignore=COMPILED) if source.is_dir() else shutil.copy(source, place)
    for name in (
        "django",
        "rest_framework",
        "celery",
        "av",
        "onnxruntime",
        "tenacity",
    ):  # what the image does not install
        (folder / f"{name}.py").write_text("raise ImportError('not in the image')\n")
    return folder


@pytest.fixture(scope="module")
def cloud(image, tmp_path_factory):
    """A worker that has come up and waits for jobs."""
    with Cloud() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        tmp = tmp_path_factory.mktemp("tmp")
        env = {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(tmp),
            "RUNPOD_WEBHOOK_GET_JOB": f"{address}/job-take/$ID?x=1",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{address}/job-done/$ID?x=1",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
            "RUNPOD_LOG_LEVEL": "INFO",
        }
        with open(tmp / "log", "w") as log:
            child = subprocess.Popen([sys.executable, "handler.py"], cwd=image, env=env, stdout=log, stderr=log)
        server.pid = child.pid
        yield server
        child.kill()
        child.wait(20)
        print((tmp / "log").read_text()[-4000:])
        server.shutdown()


def test_a_request_is_drawn_and_its_progress_told(cloud, tmp_path):
    result = cloud.run("one", GIVEN | {"call_id": "call-1"})
    video = tmp_path / "video.mp4"
    video.write_bytes(base64.b64decode(result["output"]["video_base64"]))
    assert mp4.read(video).video.count == 8


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task": "BAKE"}, "RENDER, ENHANCE"),
        ("text", "RENDER, ENHANCE"),
        (GIVEN | {"params": GIVEN["params"] | {"width": 10**6}}, "params.width"),
        (GIVEN | {"params": GIVEN["params"] | {"fps": True}}, "params.fps"),
        (GIVEN | {"params": GIVEN["params"] | {"prompt": ""}}, "params.prompt"),
        (GIVEN | {"file_base64": "%"}, "file_base64"),
    ],
)
def test_what_it_does_not_understand_fails_with_a_reason(cloud, given, words):
    assert words in cloud.run(f"bad-{words.replace(' ', '-')}", given)["error"]


def test_a_picture_is_enhanced(cloud):
    params = {
        "content_type": "image/png",
        "as_type": "image/jpeg",
        "side": 128,
        "quality": 80,
        "denoise": 0,
        "sharpen": 0,
    }
    given = {"task": "ENHANCE", "params": params, "file_base64": base64.b64encode(media_files.picture()).decode()}
    picture = base64.b64decode(cloud.run("picture", given)["output"]["picture_base64"])
    assert pyvips.Image.new_from_buffer(picture, "").width == 128
    assert "file_base64 is missing" in cloud.run("none", given | {"file_base64": ""})["error"]
    assert "params.as_type" in cloud.run("odd", given | {"params": params | {"as_type": "image/svg+xml"}})["error"]


def test_a_call_is_not_drawn_twice_but_runpods_own_second_try_is(cloud):
    given = GIVEN | {"call_id": "call-2"}
    assert "output" in cloud.run("two", given)
    assert "not done twice" in cloud.run("three", given)["error"]
    del cloud.told["two"]
    assert "output" in cloud.run("two", given)


def test_two_workers_tidy_up_one_volume(monkeypatch, tmp_path):
    """An old mark may be gone between the list of them and a look at it."""
    about = importlib.util.spec_from_file_location("handler", ROOT / "deploy" / "runpod" / "handler.py")
    handler = importlib.util.module_from_spec(about)
    about.loader.exec_module(handler)
    monkeypatch.setattr(handler, "VOLUME", tmp_path)
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter([folder / "gone"]))
    assert [handler.first_time("call", job) for job in ("one", "one", "two")] == [True, True, False]


def test_a_cancel_ends_the_work(cloud):
    cloud.jobs.put({"id": "long", "input": SLOW})
    until(lambda: max(cloud.progress("long"), default=0.0) > 0.0, seconds=40)
    assert ffmpegs_of(cloud.pid)
    cloud.stops.put({"jobsToStop": ["long"]})
    until(lambda: not ffmpegs_of(cloud.pid), seconds=10)
    assert "output" in cloud.run("after", GIVEN)
    assert cloud.result("long") is None


def ffmpegs_of(pid: int) -> list[str]:
    found = []
    for child in procfs.pids():
        if procfs.parent(child) == pid:
            try:
                found.append(Path(f"/proc/{child}/cmdline").read_text())
            except procfs.GONE:
                continue
    return [line for line in found if "ffmpeg" in line]


def test_the_image_installs_the_versions_that_are_tested():
    def pinned(name):
        lines = (ROOT / name).read_text().splitlines()
        return dict(line.split("==") for line in lines if "==" in line)

    ours = pinned("requirements.txt") | pinned("requirements-kinds.txt") | pinned("requirements-dev.txt")
    wanted = pinned("deploy/runpod/requirements.txt")
    assert wanted == {name: ours[name] for name in wanted}
    assert re.search(r"^FROM python:3\.11", DOCKERFILE.read_text(), re.MULTILINE)
