"""The engine that has work done on RunPod: sends it, watches it, pulls the result, and cancels what nobody needs.

RunPod offers no idempotency key ("Send API requests" names none). So the request's own row is written before the POST,
and its id goes with the input. When the answer to the POST is lost, nothing is sent again on a guess: the row's id is
looked for in RunPod's list of requests. Found: that job is watched. Not in a list that can be read: it was not taken,
and the next attempt may send it. No list that can be read: the job fails and is refunded, since a second job might be
billed beside the first.
"""

import base64
import binascii
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from jobs.engines import fetch, media, retry
from jobs.engines.breaker import Breaker, BreakerOpen
from jobs.engines.remote import RemoteCall
from jobs.engines.runpod_api import (
    REQUEST_BYTES,
    Busy,
    Client,
    NoAnswer,
    Rejected,
    RunpodError,
    State,
    Throttled,
    Unreachable,
    client,
)
from jobs.errors import ErrorCode, JobError

TRIES = 4  # of the POST, while RunPod answers that it did not take it
LOOKS = 3  # at RunPod's list after a lost answer
SILENCE = 45.0  # seconds without an answer about a job until it is given up; with the last call below the stall limits
CANCEL_SECONDS = 3.0  # within JOB_ABORT_GRACE; what takes longer is the sweep's
WOKEN_SECONDS = 0.5  # between two looks whether the webhook has come
STEP = 0.2  # seconds between two looks whether the attempt is to end
TTL = (10.0, 604_800.0)  # the least and the most `ttl` in seconds ("Send API requests", Execution policies)
DONE = 0.95  # of the progress is RunPod's, the rest is pulling the result
DOWNLOAD_SECONDS = 900.0


class Run(Protocol):
    """What this engine needs of a run."""

    workdir: Path

    def progress(self, fraction: float, stage: str | None = None) -> None: ...

    def alive(self) -> None: ...

    def check(self) -> None: ...

    def time_left(self) -> float: ...

    def breaker(self, target: str) -> Breaker: ...

    def remote(self, provider: str, seconds: float) -> RemoteCall: ...


class Engine:
    """RunPod as the settings describe it (`options` is JOBSITE of the settings)."""

    def __init__(self, options: Mapping[str, Any]):
        self.options = options

    def render(self, run: Run, params: dict[str, Any], image: Path | None = None) -> Path:
        """Have `params` drawn, over `image` if given; the path of a whole MP4.

        JobError: config_error (not configured), runpod_submit_error (not taken; `postpone` while the breaker is open),
        runpod_execution_error (failed there, or its result cannot be had), bad_input (the image is too large to send).
        However it ends, no job is left running on RunPod without a row that says so.
        """
        drawn = {name: value for name, value in params.items() if name != "image"}
        video = run.workdir / "remote.mp4"
        with client(self.options) as runpod:
            job = _Job(run, runpod, self.options, "drawing")
            found = job.have({"task": "RENDER", "params": drawn}, image, "video", video)
        if found.content_type != "video/mp4" or found.cut:
            raise JobError(ErrorCode.runpod_execution_error, "The result is no whole MP4 video.")
        return video

    def enhance(self, run: Run, params: dict[str, Any], image: Path, made: Path) -> tuple[int, int]:
        """Have `image` enhanced into `made`; its width and height in pixels. `params` are those of `engines.upscale`.

        JobError as `render`.
        """
        with client(self.options) as runpod:
            job = _Job(run, runpod, self.options, "enhancing")
            found = job.have({"task": "ENHANCE", "params": params}, image, "picture", made)
        if found.content_type != params["as_type"] or found.video is None:
            raise JobError(ErrorCode.runpod_execution_error, "The result is not such a picture.")
        return found.video.width, found.video.height


configured = Engine


class _Job:
    """One attempt's way through RunPod; `stage` is what the user reads while RunPod works."""

    def __init__(self, run: Run, runpod: Client, options: Mapping[str, Any], stage: str):
        self.run, self.runpod, self.options, self.stage = run, runpod, options, stage
        self.fraction = 0.0

    def have(self, given: dict[str, Any], image: Path | None, word: str, made: Path) -> media.Probe:
        """Have RunPod do what `given` asks for, and write its result, named `word` in the answer, to `made`."""
        seconds = min(max(self.run.time_left(), TTL[0]), TTL[1])
        if image:
            given["file_base64"] = _sendable(image)
        call = self.run.remote("runpod", seconds)
        self._start(call, given, seconds)
        try:
            state = self._wait(call)
        except BaseException:  # the attempt is to end, or RunPod does not tell: nobody waits for it any more
            self._cancel(call)
            raise
        call.ended(state.status)
        if state.status != "COMPLETED":
            raise JobError(ErrorCode.runpod_execution_error, _why(state))
        return self._pull(state.output if isinstance(state.output, dict) else {}, word, made)

    # --- start ----------------------------------------------------------------------------------------------------

    def _start(self, call: RemoteCall, given: dict[str, Any], seconds: float) -> None:
        """Have RunPod take the request, unless an earlier attempt's is there. `call.remote_id` is set afterwards."""
        if call.remote_id or (call.resumed and self._found(call)):
            return
        given |= {"call_id": call.id, "job_id": call.job_id, "attempt": call.attempt}
        policy = {"executionTimeout": int(seconds * 1000), "ttl": int(seconds * 1000)}  # milliseconds
        hook = {"webhook": call.webhook} if call.webhook else {}
        body = json.dumps({"input": given, "policy": policy, **hook}).encode()
        breaker = self.run.breaker("runpod")

        def post() -> str:
            return breaker.call(lambda: self.runpod.run(body), on=(Unreachable, Busy, NoAnswer))

        try:
            remote_id = retry.call(
                post,
                label="RunPod submit",
                tries=TRIES,
                on=(Unreachable, Busy, Throttled),
                initial=self.options["RETRY_INITIAL_DELAY"],
                factor=self.options["RETRY_FACTOR"],
                most=self.options["RETRY_MAX_DELAY"],
                check=self.run.alive,
            )
        except BreakerOpen as error:
            call.ended("not sent")
            raise JobError(
                ErrorCode.runpod_submit_error, "RunPod is down; the job waits for it.", postpone=error.wait
            ) from error
        except (Unreachable, Busy, Throttled, Rejected) as error:
            call.ended("not taken")
            again = not isinstance(error, Rejected)  # a wrong key is as wrong a minute later
            raise JobError(ErrorCode.runpod_submit_error, f"{_sentence(error)}.", retryable=again) from error
        except NoAnswer as error:
            if not self._found(call):
                raise JobError(
                    ErrorCode.runpod_submit_error, f"{_sentence(error)}; it did not take the job."
                ) from error
        else:
            call.started(remote_id)

    def _found(self, call: RemoteCall) -> bool:
        """Look for a request whose fate is unknown in RunPod's list; False if it was not taken.

        JobError(runpod_submit_error), final, if that cannot be told.
        """
        for look in range(LOOKS):
            if look:
                self._pause(self.options["RUNPOD_POLL_SECONDS"])
            try:
                remote_id = self.runpod.find(call.id)
            except (Unreachable, Busy, Throttled, NoAnswer, Rejected) as error:
                silent: RunpodError | None = error
            else:
                silent = None
                if remote_id:
                    call.started(remote_id)
                    return True
        if silent:
            words = "RunPod's answer got lost, and it may have taken the job: it is not sent a second time."
            raise JobError(ErrorCode.runpod_submit_error, words, retryable=False) from silent
        return False

    # --- wait -----------------------------------------------------------------------------------------------------

    def _wait(self, call: RemoteCall) -> State:
        """Watch the job until it has ended: the first final state counts, whatever RunPod says later. A webhook only
        shortens a pause.

        JobError(runpod_execution_error) if RunPod does not know it, or tells nothing for SILENCE.
        """
        self.run.alive()  # RunPod has taken it, however long that took
        heard, failures = time.monotonic(), 0
        while True:
            pause = self.options["RUNPOD_POLL_SECONDS"]
            try:
                state = self.runpod.status(call.remote_id)
            except Rejected as error:
                words = "RunPod no longer knows the job; its result has expired" if error.status == 404 else str(error)
                raise JobError(ErrorCode.runpod_execution_error, f"{words}.") from error
            except (Unreachable, Busy, Throttled, NoAnswer) as error:
                failures += 1
                left = SILENCE - (time.monotonic() - heard)
                pause = min(max(min(10.0, pause * 2**failures), min(10.0, error.retry_after or 0.0)), left)
                if left <= 0:
                    raise JobError(
                        ErrorCode.runpod_execution_error, f"{_sentence(error)}; the job is given up."
                    ) from error
            else:
                if state.ended:
                    return state
                heard, failures = time.monotonic(), 0
                self._tell(state)
            self._pause(pause, call)

    def _tell(self, state: State) -> None:
        """Progress as RunPod tells it; that it is in the queue or in work is a sign of life up to the run limit."""
        if state.status == "IN_QUEUE":
            self.run.progress(self.fraction, "in_queue")
        else:
            report = state.output.get("progress") if isinstance(state.output, dict) else None
            if isinstance(report, (int, float)) and not isinstance(report, bool) and 0.0 <= report <= 1.0:
                self.fraction = max(self.fraction, DONE * report)
            self.run.progress(self.fraction, self.stage)
        self.run.alive()

    def _pause(self, seconds: float, call: RemoteCall | None = None) -> None:
        """Wait, but no longer than until the webhook of `call` has come."""
        until = time.monotonic() + seconds
        look = time.monotonic() + WOKEN_SECONDS
        while (left := until - time.monotonic()) > 0:
            self.run.check()
            if call and call.webhook and time.monotonic() >= look:
                if call.woken():
                    return
                look = time.monotonic() + WOKEN_SECONDS
            time.sleep(min(STEP, left))
        self.run.check()

    def _cancel(self, call: RemoteCall) -> None:
        """Cancel the job, unless a later attempt waits for it. Where that fails, its row stays for the sweep."""
        if not call.give_up():
            return
        try:
            call.ended(self.runpod.cancel(call.remote_id, seconds=CANCEL_SECONDS))
        except RunpodError:
            return  # the row says `cancel_wanted`

    # --- pull -----------------------------------------------------------------------------------------------------

    def _pull(self, output: dict[str, Any], word: str, made: Path) -> media.Probe:
        """Write the result to `made`: inline as `<word>_base64`, or behind `<word>_url`. Returns what it is."""
        self.run.progress(max(self.fraction, DONE), "downloading")
        most = self.options["RUNPOD_OUTPUT_BYTES"]
        inline, url = output.get(f"{word}_base64"), output.get(f"{word}_url")
        if isinstance(inline, str) and inline:
            _decode(inline, made, most)
        elif isinstance(url, str) and url:
            seconds = min(DOWNLOAD_SECONDS, self.run.time_left())
            try:
                fetch.fetch(url, made, most=most, seconds=seconds, check=self.run.alive, loopback=self.runpod.local)
            except (fetch.Refused, fetch.Failed) as error:
                raise JobError(ErrorCode.runpod_execution_error, f"The result cannot be had. {error}") from error
        else:
            raise JobError(ErrorCode.runpod_execution_error, "RunPod gave no result; it may have expired.")
        try:
            return media.probe(made, label="The result", stop=self.run.alive)
        except JobError as error:
            if error.code is ErrorCode.bad_input:
                raise JobError(ErrorCode.runpod_execution_error, error.message) from error
            raise


def _sendable(image: Path) -> str:
    """The image as it goes with the request. JobError(bad_input) if it would make it too large for RunPod."""
    most = REQUEST_BYTES * 3 // 4 - 65_536
    if image.stat().st_size > most:
        raise JobError(ErrorCode.bad_input, f"image is too large for RunPod: at most {most} bytes.")
    return base64.b64encode(image.read_bytes()).decode("ascii")


def _decode(text: str, target: Path, most: int) -> None:
    if len(text) // 4 * 3 > most + 3:
        raise JobError(ErrorCode.runpod_execution_error, "The result is larger than allowed.")
    try:
        target.write_bytes(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise JobError(ErrorCode.runpod_execution_error, "The result is no base64.") from error


def _why(state: State) -> str:
    return {
        "FAILED": f"The job failed on RunPod: {state.error}" if state.error else "The job failed on RunPod.",
        "TIMED_OUT": "The job ran out of time on RunPod.",
        "CANCELLED": "The job was cancelled on RunPod.",
    }[state.status]


def _sentence(error: RunpodError) -> str:
    words = str(error)
    return words[:1].upper() + words[1:]
