"""RENDER on RunPod through the runner: each code of SYSTEMS A7 provoked, tokens back, no key anywhere, no stray."""

import hashlib
import threading

import pytest
import pyvips
from django.conf import settings
from django.core.files.base import ContentFile
from django.db import connections

from jobs import artifacts, kinds, lifecycle, queries, remote, runner, tasks
from jobs.engines import remote_worker
from jobs.engines.fake_runpod import FakeRunpod
from jobs.engines.fake_runpod_jobs import FAULTS
from jobs.heartbeat import heart
from jobs.intake import checked_params
from jobs.models import Artifact, Breaker, Job, JobEvent, RemoteCall, Status, Upload
from tests import invariants, media_files
from tests.jobs.engines.runpod_rig import DRAW, drawn_before, no_drawing, small_video
from tests.waiting import until
from tokens.models import Account

pytestmark = pytest.mark.django_db(transaction=True)
KEY = "canary-b41d9e"
SMALL = {"prompt": "A calm lake", "seconds": 1.0, "fps": 8, "width": 64, "height": 64, "seed": 0}


@pytest.fixture(autouse=True)
def _configured(monkeypatch, fake):
    quick = {"HEARTBEAT_SECONDS": 0.2, "WATCH_SECONDS": 0.05, "BACKOFF_INITIAL": 0.01, "BACKOFF_MAX": 0.01}
    quick |= {"RETRY_INITIAL_DELAY": 0.01, "RETRY_MAX_DELAY": 0.02, "RUNPOD_POLL_SECONDS": 0.05}
    there = {"RUNPOD_API_KEY": KEY, "RUNPOD_ENDPOINT_ID": "rehearsal", "RUNPOD_BASE_URL": fake.base_url}
    monkeypatch.setattr(settings, "JOBSITE", settings.JOBSITE | quick | there | {"RENDER_ENGINE": "runpod"})
    monkeypatch.setattr(heart, "_end_if_deaf", lambda idle_since: None)
    yield
    heart.stop()
    invariants.check()


@pytest.fixture
def fake(monkeypatch):
    no_drawing(monkeypatch)
    with FakeRunpod(key=KEY, cold=1.0) as running:
        yield running


@pytest.fixture
def render(ann):
    """render("prompt") → the job after one attempt of it."""

    def make(prompt="A calm lake", *, max_attempts=1):
        job, _ = lifecycle.submit(ann.pk, "RENDER", SMALL | {"prompt": prompt}, max_attempts=max_attempts)
        assert job.queue == "remote"
        runner.run(lifecycle.claim("remote"))
        return Job.objects.get(pk=job.pk)

    return make


def balance(user) -> int:
    return Account.objects.get(pk=user.pk).balance


def test_a_prompt_becomes_a_playable_video(render, ann):
    job = render()
    assert job.status == Status.SUCCEEDED, job.error_message
    with artifacts.default_storage.open(job.outputs.get().key) as stored:
        assert stored.read() == small_video()
    assert balance(ann) == 999
    call = RemoteCall.objects.get()
    assert (call.job_id, call.attempt, call.state, call.outcome) == (job.pk, 1, "ended", "COMPLETED")


CODES = [
    ("config_error", "", "RunPod is not configured"),
    ("runpod_submit_error", "#unauthorized", "RunPod does not accept the API key"),
    ("runpod_submit_error", "#lost_answer #no_list", "not sent a second time"),
    ("runpod_execution_error", "#fails", "CUDA out of memory"),
    ("runpod_execution_error", "#script_error", "forged line"),
    ("runpod_execution_error", "#expired", "expired"),
    ("runpod_execution_error", "#url_internal", "not https"),
]


@pytest.mark.parametrize(("code", "prompt", "words"), CODES)
def test_each_code_for_real_with_the_tokens_back(render, ann, code, prompt, words, monkeypatch, caplog, capfd):
    if code == "config_error":
        monkeypatch.setitem(settings.JOBSITE, "RUNPOD_ENDPOINT_ID", "")
    job = render(prompt)
    assert (job.status, job.error_code) == (Status.FAILED, code)
    assert words in job.error_message
    assert balance(ann) == 1000
    assert not Artifact.objects.exists()
    told = [caplog.text, *capfd.readouterr(), job.error_message, repr(list(JobEvent.objects.values()))]
    assert not [text for text in told if KEY in text], "S35"
    assert job.error_message.isprintable()


def test_a_lost_answer_starts_one_job(render, fake, ann):
    """F33."""
    assert render("#lost_answer", max_attempts=3).status == Status.SUCCEEDED
    assert len(fake.jobs) == 1
    assert balance(ann) == 999


def test_a_completed_job_stays_completed(render, fake):
    """F34."""
    assert render("#flapping").status == Status.SUCCEEDED


def test_a_lost_request_is_sent_by_the_next_attempt(render, fake):
    job = render("#lost_request:1", max_attempts=3)
    assert (job.status, job.error_code) == (Status.RETRY, "runpod_submit_error")
    assert remote.sweep().left == 0
    until(lambda: (lease := lifecycle.claim("remote")) and (runner.run(lease) or True))
    assert Job.objects.get(pk=job.pk).status == Status.SUCCEEDED
    assert (len(fake.jobs), RemoteCall.objects.count()) == (1, 1)


def test_a_cancel_reaches_runpod(ann, fake):
    job, _ = lifecycle.submit(ann.pk, "RENDER", SMALL | {"prompt": "#stuck_work"})
    lease = lifecycle.claim("remote")
    seen = []

    def cancel():
        try:
            until(lambda: any(known.status == "IN_PROGRESS" for known in fake.jobs.values()))
            seen.append(lifecycle.cancel(job.pk, by="test").status)
        finally:
            connections.close_all()

    thread = threading.Thread(target=cancel)
    thread.start()
    runner.run(lease)
    thread.join()
    assert seen == [Status.CANCELED]
    (known,) = fake.jobs.values()
    assert known.status == "CANCELLED"
    assert RemoteCall.objects.get().outcome == "CANCELLED"
    assert balance(ann) == 1000


def test_in_the_queue_is_a_sign_of_life_and_a_cold_start_is_told(ann, fake):
    job, _ = lifecycle.submit(ann.pk, "RENDER", SMALL | {"prompt": "#cold_start"})
    fake.cold = 4.0
    Job.objects.filter(pk=job.pk).update(stall_limit=2)
    lease = lifecycle.claim("remote")
    hints, settings.JOBSITE["COLD_START_THRESHOLD"] = [], 0.3

    def watch():
        try:
            while not hints and not Job.objects.get(pk=job.pk).finished_at:
                row = Job.objects.get(pk=job.pk)
                if row.stage == "in_queue" and queries.status_hint(row):
                    hints.append(queries.status_hint(row))
        finally:
            connections.close_all()

    thread = threading.Thread(target=watch)
    thread.start()
    runner.run(lease)
    thread.join()
    assert Job.objects.get(pk=job.pk).status == Status.SUCCEEDED
    assert hints == ["warming_gpu"]


def test_a_service_that_is_down_is_left_alone_and_spends_no_attempt(render, fake, monkeypatch):
    monkeypatch.setitem(settings.JOBSITE, "CIRCUIT_THRESHOLD", 2)
    fake.plan = {"broken": -1}
    job = render(max_attempts=3)
    assert (job.status, job.failures, job.error_code) == (Status.RETRY, 0, "runpod_submit_error")
    assert Breaker.objects.get(target="runpod").opened_at
    assert fake.calls("/run") == 2
    assert (job.run_after - Job.objects.get(pk=job.pk).started_at).total_seconds() > 60


def test_the_queue_follows_the_engine_and_what_was_sold_before_is_still_served(ann, monkeypatch):
    job, _ = lifecycle.submit(ann.pk, "RENDER", SMALL)
    monkeypatch.setitem(settings.JOBSITE, "RENDER_ENGINE", "preview")
    assert kinds.get("RENDER").queue == "gpu"
    assert tasks.work(job.queue) == 1
    assert Job.objects.get(pk=job.pk).status == Status.SUCCEEDED


def test_a_video_of_another_size_is_not_published(ann, fake):
    lifecycle.submit(ann.pk, "RENDER", SMALL | {"width": 128}, max_attempts=1)
    runner.run(lifecycle.claim("remote"))
    job = Job.objects.get()
    assert (job.status, job.error_code) == (Status.FAILED, "ffmpeg_error")
    assert "64x64 instead of 8 of 128x64" in job.error_message
    assert balance(ann) == 1000


@pytest.mark.parametrize(
    ("fault", "code"), [(None, ""), ("wrong_type", "runpod_execution_error"), ("a video", "runpod_execution_error")]
)
def test_a_picture_is_enhanced(ann, fake, monkeypatch, fault, code):
    monkeypatch.setitem(settings.JOBSITE, "ENHANCE_ENGINE", "runpod")
    monkeypatch.setattr(remote_worker, "work", drawn_before if fault == "a video" else DRAW)
    fake.plan = {fault: -1} if fault in FAULTS else {}
    picture = media_files.picture()
    sha256 = hashlib.sha256(picture).hexdigest()
    upload = Upload(owner=ann, name="a.png", bytes=len(picture), sha256=sha256, content_type="image/png")
    upload.key = artifacts.default_storage.save(f"uploads/{upload.pk}", ContentFile(picture))
    upload.save()
    params = {"image": f"upload:{upload.pk}", "tier": "1K", "format": "jpeg"}
    job, _ = lifecycle.submit(ann.pk, "ENHANCE", checked_params(kinds.get("ENHANCE"), params), max_attempts=1)
    runner.run(lifecycle.claim("remote"))
    job.refresh_from_db()
    assert job.error_code == code, job.error_message
    if not code:
        with artifacts.default_storage.open(job.outputs.get().key) as stored:
            made = pyvips.Image.new_from_buffer(stored.read(), "")
        assert (made.width, made.height) == (1024, 1024)
    assert balance(ann) == (1000 if code else 1000 - job.price)
    assert RemoteCall.objects.get().outcome == "COMPLETED"
