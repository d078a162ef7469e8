"""The RunPod engine against the fake: a video comes of it, and each bad day ends in one clear word and no stray."""

import functools
import json
import socket
import time

import httpx
import pytest

from jobs.engines import mp4, remote_worker, runpod, runpod_api
from jobs.engines.fake_runpod import FakeRunpod
from jobs.engines.fake_runpod_jobs import FAULTS
from jobs.errors import ErrorCode, JobError
from jobs.kinds.base import Abort
from tests.jobs.engines.runpod_rig import DRAW, KEY, RemoteRig, no_drawing, options
from tests.waiting import until

SUBMIT, EXECUTION = ErrorCode.runpod_submit_error, ErrorCode.runpod_execution_error


@pytest.fixture
def fake(monkeypatch):
    """The fake; its workers draw the same small video always, but for the tests that take `drawing`."""
    no_drawing(monkeypatch)
    with FakeRunpod(key=KEY, cold=0.4, slow=1.0) as running:
        yield running


@pytest.fixture
def drawing(monkeypatch, fake):
    monkeypatch.setattr(remote_worker, "work", DRAW)


@pytest.fixture
def draw(fake, tmp_path):
    """draw("prompt") → the video's path; `draw.run` is the run."""

    def make(prompt="A calm lake", *, image=None, seconds_left=600.0, prepare=lambda run: None, **changed):
        make.run = RemoteRig(tmp_path / "work", prompt, seconds_left=seconds_left)
        prepare(make.run)
        return runpod.configured(options(fake, **changed)).render(make.run, make.run.params, image)

    return make


def only(fake):
    (job,) = fake.jobs.values()
    return job


def test_a_prompt_becomes_a_playable_video(drawing, draw, fake):
    track = mp4.read(draw()).video
    assert (track.count, track.width, track.height) == (8, 64, 64)
    assert draw.run.row.states == ["intended", "started", "COMPLETED"]
    assert draw.run.stages[-1] == "downloading"
    assert draw.run.fractions == sorted(draw.run.fractions)


def test_what_is_sent(draw, fake):
    draw(seconds_left=120)
    body = only(fake).body
    assert body["policy"] == {"executionTimeout": 120_000, "ttl": 120_000}
    given = body["input"]
    assert (given["call_id"], given["job_id"], given["attempt"]) == ("0193-call", "0193-job", 1)
    assert given["params"]["prompt"] == "A calm lake"
    assert given["task"] == "RENDER"


def test_an_image_goes_with_it(drawing, draw, fake, material):
    assert mp4.read(draw(image=material("still.png"))).video.count == 8
    assert len(only(fake).body["input"]["file_base64"]) > 100


def test_an_image_that_is_too_large_to_send_is_refused_before_anything_is_sent(draw, fake, tmp_path):
    image = tmp_path / "large.png"
    image.write_bytes(bytes(8_000_000))
    with pytest.raises(JobError, match="too large for RunPod") as raised:
        draw(image=image)
    assert raised.value.code is ErrorCode.bad_input
    assert not fake.requests


def test_the_row_is_written_before_the_request(draw, fake):
    def prepare(run):
        run.on_remote = lambda: seen.append(len(fake.requests))

    seen = []
    draw(prepare=prepare)
    assert seen == [0]
    assert fake.requests[0] == ("POST", "/v2/rehearsal/run")


@pytest.mark.parametrize("missing", ["RUNPOD_API_KEY", "RUNPOD_ENDPOINT_ID"])
def test_not_configured(draw, fake, missing):
    with pytest.raises(JobError, match=f"RunPod is not configured: {missing}") as raised:
        draw(**{missing: ""})
    assert raised.value.code is ErrorCode.config_error
    assert not raised.value.retryable
    assert raised.value.code.row.refund


@pytest.mark.parametrize("base", ["https://api.runpod.ai/v2", "HTTPS://api.runpod.ai/v2"])
def test_runpods_certificate_is_looked_at(monkeypatch, base):
    given = {}
    monkeypatch.setattr(httpx, "Client", lambda **options: given.update(options))
    runpod_api.Client(KEY, "rehearsal", base)
    assert given["verify"] is True


@pytest.mark.parametrize(
    "base", ["http://api.runpod.ai/v2", "ftp://x/", "https://me@api.runpod.ai/v2", "api.runpod.ai"]
)
def test_the_key_goes_only_where_it_is_safe(draw, base):
    with pytest.raises(JobError, match="RUNPOD_BASE_URL") as raised:
        draw(RUNPOD_BASE_URL=base)
    assert raised.value.code is ErrorCode.config_error


@pytest.mark.parametrize(
    ("faults", "code", "words", "again", "jobs", "row"),
    [
        ("#unauthorized", SUBMIT, "does not accept the API key", False, 0, "not taken"),
        ("#throttled", SUBMIT, "takes no more requests now", True, 0, "not taken"),
        ("#broken", SUBMIT, "answered 500", True, 0, "not taken"),
        ("#lost_request", SUBMIT, "did not take the job", True, 0, "intended"),
        ("#lost_answer #no_list", SUBMIT, "not sent a second time", False, 1, "intended"),
        ("#lost_answer #blind_list", SUBMIT, "not sent a second time", False, 1, "intended"),
        ("#fails", EXECUTION, "failed on RunPod: CUDA out of memory at …", True, 1, "FAILED"),
        ("#expired", EXECUTION, "result has expired", True, 1, "gone"),
        ("#no_output", EXECUTION, "no result", True, 1, "COMPLETED"),
        ("#url_file", EXECUTION, "not https", True, 1, "COMPLETED"),
        ("#url_internal", EXECUTION, "not https", True, 1, "COMPLETED"),
        ("#url_redirect", EXECUTION, "answered 302", True, 1, "COMPLETED"),
        ("#url_endless", EXECUTION, "larger than allowed", True, 1, "COMPLETED"),
        ("#url_huge", EXECUTION, "larger than allowed", True, 1, "COMPLETED"),
        ("#wrong_type", EXECUTION, "The result is not a video", True, 1, "COMPLETED"),
        ("#half", EXECUTION, "no whole MP4", True, 1, "COMPLETED"),
        ("#no_base64", EXECUTION, "no base64", True, 1, "COMPLETED"),
    ],
)
def test_a_bad_day(draw, fake, faults, code, words, again, jobs, row):
    with pytest.raises(JobError) as raised:
        draw(faults)
    error = raised.value
    assert words in error.message
    assert (error.code, error.retryable) == (code, again)
    assert len(fake.jobs) == jobs
    assert draw.run.row.states[-1] == row
    assert KEY not in error.message


def test_a_result_and_an_answer_are_only_so_large(draw, fake, monkeypatch):
    with pytest.raises(JobError, match="The result is larger than allowed"):
        draw(RUNPOD_OUTPUT_BYTES=100)
    monkeypatch.setattr(runpod_api, "ANSWER_BYTES", 500)  # what names the job fits in, what holds its video does not
    monkeypatch.setattr(runpod, "SILENCE", 0.3)
    with pytest.raises(JobError, match="answer is too long; the job is given up") as raised:
        draw()
    assert raised.value.code is EXECUTION


@pytest.mark.parametrize(
    "prompt", ["#throttled:2", "#broken:2", "#status_broken:2", "#cold_start", "#flapping", "#by_url"]
)
def test_what_passes_is_survived(draw, fake, prompt):
    assert mp4.read(draw(prompt)).video.count == 8
    assert len(fake.jobs) == 1


def test_a_lost_answer_is_found_by_our_id_and_not_sent_again(draw, fake):
    assert mp4.read(draw("#lost_answer")).video.count == 8
    assert (fake.calls("/run"), fake.calls("/requests"), len(fake.jobs)) == (1, 1, 1)
    assert draw.run.row.states == ["intended", "started", "COMPLETED"]


def test_a_queue_that_is_never_left_ends_at_our_own_limit(draw, fake):
    with pytest.raises(JobError, match="ran out of time") as raised:
        fake.plan = {"stuck_queue": -1}
        draw(seconds_left=0.1, prepare=lambda run: shorten(fake))
    assert raised.value.code is EXECUTION
    assert draw.run.stages[-1] == "in_queue"


def shorten(fake):
    """RunPod takes no limit below 10 s; the test does not wait for them."""
    take = fake.take

    def sooner(body, faults):
        body["policy"] = {name: value / 20 for name, value in body["policy"].items()}
        return take(body, faults)

    fake.take = sooner


@pytest.mark.parametrize("known", [True, False])
def test_the_attempt_after_a_dead_worker_watches_what_that_one_sent(draw, fake, known):
    """It had heard the answer or not; either way nothing is sent a second time."""
    draw()
    job = only(fake)

    def prepare(run):
        run.row.resumed, run.row.remote_id = True, job.id if known else ""

    draw(prepare=prepare)
    assert fake.calls("/run") == 1
    assert draw.run.row.states[-1] == "COMPLETED"


def test_the_attempt_after_a_request_that_was_not_taken_sends_it(draw, fake):
    draw(prepare=lambda run: setattr(run.row, "resumed", True))
    assert (fake.calls("/run"), fake.calls("/requests")) == (1, runpod.LOOKS)


@pytest.mark.parametrize("taken_over", [False, True])
def test_an_abort_cancels_it_unless_a_later_attempt_has_it(draw, fake, taken_over):
    def prepare(run):
        run.abort_when = lambda rig: "in_queue" in rig.stages
        run.row.taken_over = taken_over

    with pytest.raises(Abort):
        draw("#stuck_queue", prepare=prepare)
    assert only(fake).status == ("IN_QUEUE" if taken_over else "CANCELLED")
    assert draw.run.row.states[2:] == ["cancel_wanted"] + ([] if taken_over else ["CANCELLED"])


@pytest.mark.parametrize(("fault", "left"), [("cancel_broken", "cancel_wanted"), ("cancel_late", "COMPLETED")])
def test_a_cancel_that_fails_or_comes_late(draw, fake, fault, left):
    with pytest.raises(Abort):
        draw(
            f"#stuck_queue #{fault}",
            prepare=lambda run: setattr(run, "abort_when", lambda rig: "in_queue" in rig.stages),
        )
    assert draw.run.row.states[-1] == left


def test_an_abort_while_the_request_is_under_way(draw, fake):
    """The slow answer comes, is noted, and then the job is cancelled."""
    began = time.monotonic()
    with pytest.raises(Abort):
        draw(
            "#slow_answer #stuck_work",
            prepare=lambda run: setattr(
                run, "abort_when", lambda rig: bool(fake.jobs) and time.monotonic() > began + 0.5
            ),
        )
    until(lambda: only(fake).status == "CANCELLED")
    assert draw.run.row.states == ["intended", "started", "cancel_wanted", "CANCELLED"]


def test_an_answer_later_than_we_wait_is_a_lost_one(draw, fake, monkeypatch):
    fake.slow = 4.0
    impatient = functools.partial(runpod_api.Client, KEY, "rehearsal", fake.base_url, seconds=2.0)
    monkeypatch.setattr(runpod, "client", lambda options: impatient())
    assert mp4.read(draw("#slow_answer")).video.count == 8
    assert len(fake.jobs) == 1


def test_silence_gives_it_up_and_cancels(draw, fake, monkeypatch):
    monkeypatch.setattr(runpod, "SILENCE", 0.3)
    with pytest.raises(JobError, match="given up") as raised:
        draw("#stuck_work #status_broken")
    assert raised.value.code is EXECUTION
    assert draw.run.row.states[-1] == "CANCELLED"


def test_no_pause_reaches_beyond_the_silence(draw, fake, monkeypatch):
    """Else the stall limit ended the attempt first, and its word was `stalled`."""
    monkeypatch.setattr(runpod, "SILENCE", 1.0)
    began = time.monotonic()
    with pytest.raises(JobError, match="given up"):
        draw("#stuck_work #status_broken", RUNPOD_POLL_SECONDS=60.0)
    assert time.monotonic() - began < 30.0


def test_an_open_breaker_postpones_and_sends_nothing(draw, fake):
    with pytest.raises(JobError) as raised:
        draw(prepare=lambda run: setattr(run.store, "wait", 33.0))
    assert (raised.value.code, raised.value.postpone) == (SUBMIT, 33.0)
    assert not fake.requests
    assert draw.run.row.states == ["intended", "not sent"]


@pytest.mark.parametrize(("fault", "counted"), [("#broken", runpod.TRIES), ("#throttled", 0), ("#unauthorized", 0)])
def test_the_breaker_counts_failures_not_refusals(draw, fault, counted):
    with pytest.raises(JobError):
        draw(fault)
    assert draw.run.store.failures == counted


def test_nobody_there(draw, fake):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(JobError, match="cannot be reached") as raised:
            draw(RUNPOD_BASE_URL=f"http://127.0.0.1:{free.getsockname()[1]}/v2")
    assert (raised.value.code, raised.value.retryable) == (SUBMIT, True)
    assert draw.run.row.states == ["intended", "not taken"]


def test_an_error_text_of_the_worker_is_one_clean_line(draw):
    with pytest.raises(JobError) as raised:
        draw("#script_error")
    text = raised.value.message
    assert KEY not in text
    assert text.isprintable()
    assert "\x1b" not in text and "10.0.0.1" not in text
    assert len(text) < 400


def test_the_key_is_in_no_text(fake):
    client = runpod_api.Client(KEY, "rehearsal", fake.base_url)
    assert KEY not in repr(client)
    assert KEY not in repr(client._http.headers)
    assert KEY not in client.clean(f"Authorization: Bearer {KEY}")
    fake.plan = {"unauthorized": -1}
    with client, pytest.raises(runpod_api.Rejected) as raised:
        client.health()
    assert KEY not in f"{raised.value!r}{raised.value.__cause__!r}"


def test_health(fake):
    with runpod_api.client(options(fake)) as client:
        assert client.health()["jobs"]["inQueue"] == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"[" * 100_000,
        b'{"id": "../../cancel/x", "status": "IN_QUEUE"}',
        b'{"id": 7}',
        b'{"id": "a\\u0000b"}',
        b"null",
        b"[]",
    ],
)
def test_an_answer_that_is_none(answer):
    client = runpod_api.Client(KEY, "e", "http://127.0.0.1:1/v2")
    client._http = httpx.Client(
        base_url="http://x/", transport=httpx.MockTransport(lambda request: httpx.Response(200, content=answer))
    )
    with client:
        for ask in (lambda: client.run(b"{}"), lambda: client.status("x")):
            with pytest.raises(runpod_api.NoAnswer):
                ask()


def test_the_plan_of_faults_is_set_over_http(fake):
    def control(body):
        return httpx.post(f"{fake.address}/control", content=body)

    assert control(json.dumps({"faults": {"throttled": 1}})).json() == {"faults": {"throttled": 1}}
    assert fake.plan == {"throttled": 1}
    assert control('{"faults": {"nonsense": 1}}').json()["faults"] == FAULTS
    assert control("nonsense").status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        '{"input": 3}',
        '{"input": {}, "policy": {"executionTimeout": 5000}}',
        '{"input": {}, "policy": {"ttl": 9999}}',
        json.dumps({"input": {"x": "y" * 10_000_000}}),
    ],
)
def test_the_fake_refuses_what_runpod_refuses(fake, body):
    answer = httpx.post(f"{fake.base_url}/rehearsal/run", content=body, headers={"Authorization": KEY})
    assert answer.status_code == 400


def test_the_fake_wants_its_key_and_its_endpoint(fake):
    assert httpx.get(f"{fake.base_url}/rehearsal/health").status_code == 401
    assert httpx.get(f"{fake.base_url}/other/health", headers={"Authorization": f"Bearer {KEY}"}).status_code == 404
