"""A run against the fake RunPod, without database: the request's row and the breaker are kept in memory."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

from jobs.engines import remote_worker
from jobs.engines.breaker import Breaker
from jobs.engines.fake_runpod import FakeRunpod
from jobs.kinds import get
from tests.jobs.kinds.rig import Rig, validated

KEY = "canary-5a1f00c3"  # no error, row or log may hold it
SMALL = {"seconds": 1, "fps": 8, "width": 64, "height": 64}
DRAW = remote_worker.work
ASKED = {"task": "RENDER", "params": SMALL | {"prompt": "A calm lake", "seed": 0}}


@functools.cache
def small_video() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return DRAW(ASKED, Path(folder)).read_bytes()


def no_drawing(monkeypatch) -> None:
    """The fake's workers answer every request with the same small video. It is drawn here and now: the end of a run
    kills all children that its process has got meanwhile, a drawing FFmpeg, too."""
    small_video()
    monkeypatch.setattr(remote_worker, "work", drawn_before)


def drawn_before(given, workdir, *, report, stop):
    """In place of `remote_worker.work`: the same small video for every request, drawn once a process."""
    report(0.5)
    (workdir / "video.mp4").write_bytes(small_video())
    return workdir / "video.mp4"


class Row:
    """`RemoteCall` in memory; `states` is what it went through, `taken_over` that a later attempt has it."""

    id, job_id, attempt, webhook = "0193-call", "0193-job", 1, ""

    def __init__(self):
        self.remote_id, self.resumed, self.taken_over = "", False, False
        self.states = ["intended"]

    def started(self, remote_id: str) -> None:
        self.remote_id = remote_id
        self.states.append("started")

    def ended(self, outcome: str) -> None:
        self.states.append(outcome)

    def give_up(self) -> bool:
        self.states.append("cancel_wanted")
        return not self.taken_over


class NeverOpen:
    """A breaker's store that counts failures and stays closed; `wait` opens it."""

    def __init__(self):
        self.failures, self.wait = 0, 0.0

    def admit(self, target):
        return self.wait, False

    def failed(self, target, *, probing):
        self.failures += 1


class RemoteRig(Rig):
    """One attempt of a RENDER on RunPod."""

    def __init__(self, workdir, prompt="A calm lake", *, seconds_left=600.0, **params):
        super().__init__(workdir, validated(get("RENDER"), prompt=prompt, **SMALL | params))
        self.row, self.store, self.seconds_left = Row(), NeverOpen(), seconds_left
        self.on_remote: Callable[[], None] = lambda: None

    def remote(self, provider: str, seconds: float) -> Row:
        assert provider == "runpod"
        self.on_remote()
        return self.row

    def breaker(self, target: str) -> Breaker:
        return Breaker(target, self.store)

    def time_left(self) -> float:
        return self.seconds_left


def options(fake: FakeRunpod, **changed) -> dict:
    """What the settings would say."""
    return {
        "RUNPOD_API_KEY": KEY,
        "RUNPOD_ENDPOINT_ID": "rehearsal",
        "RUNPOD_BASE_URL": fake.base_url,
        "RUNPOD_POLL_SECONDS": 0.05,
        "RUNPOD_OUTPUT_BYTES": 10_000_000,
        "RETRY_INITIAL_DELAY": 0.02,
        "RETRY_FACTOR": 1.5,
        "RETRY_MAX_DELAY": 0.1,
        **changed,
    }
