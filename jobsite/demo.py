"""`manage.py demo`: a platform of its own, used through the REST API as by any client, its promises put to the test."""

import hashlib
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import av
import httpx

from . import demo_platform, demo_screen
from .demo_platform import Failed

PROMPTS = ["a quiet harbour at dawn", "rain on a tin roof, warm light", "the last tram of the night"]
SECONDS, FPS, WIDTH, HEIGHT = 4, 24, 960, 540  # of each render
TOKENS = 200  # granted to the demo's user
PATIENCE = 180.0  # seconds without any change until a job counts as hanging
POLL = 0.15  # seconds
GONE_WITHIN = 2.0  # seconds from the cancel until FFmpeg must be gone
LONG = 8.0  # seconds that the render to be cancelled should take
FINAL = ("SUCCEEDED", "FAILED", "CANCELED")

Job = dict[str, Any]  # as the API answers it


class Refused(Failed):
    """The API refused a request; `detail` is its reason in its own words."""

    def __init__(self, request: str, answer: httpx.Response):
        try:
            problem = answer.json()
            details = [problem["detail"], *(wrong["detail"] for wrong in problem.get("errors", []))]
            self.detail = "; ".join(dict.fromkeys(details))
        except (ValueError, KeyError, TypeError):
            self.detail = answer.reason_phrase
        super().__init__(f"{request} was refused with {answer.status_code}: {self.detail}")


class Client:
    """A client of the API: one key, and the patience that Retry-After asks for."""

    def __init__(self, url: str, key: str):
        own = {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=url, headers=own, timeout=60, trust_env=False)  # no proxy on the way home
        self.labels: dict[str, str] = {}  # of the jobs that it submitted, by id
        self.close = self.http.close

    def call(self, method: str, path: str, **options) -> Any:
        """The JSON that a request is answered with. Refused, or Failed if there is no answer for half a minute."""
        until = time.monotonic() + 30
        while True:
            try:
                answer = self.http.request(method, path, **options)
            except httpx.TransportError as wrong:
                if time.monotonic() > until or "files" in options:
                    raise Failed(f"{method} {path} got no answer ({wrong}).") from wrong
                time.sleep(1)
                continue
            if answer.status_code not in (429, 503) or time.monotonic() > until:
                break
            time.sleep(float(answer.headers.get("Retry-After", 1)))
        if answer.is_error:
            raise Refused(f"{method} {path}", answer)
        return answer.json()

    def submit(self, label: str, kind: str, **params) -> Job:
        """Submit a job; sent twice, it is still one."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        job = self.call("POST", "/api/jobs/", json={"kind": kind, "params": params}, headers=headers)
        self.labels[job["id"]] = f"{kind} {label}"
        return job

    def job(self, job: Job) -> Job:
        return self.call("GET", f"/api/jobs/{job['id']}/")

    def upload(self, path: Path) -> str:
        """Upload a file; what params call it."""
        with open(path, "rb") as file:
            try:
                return self.call("POST", "/api/uploads/", files={"file": (path.name, file)}, timeout=600)["reference"]
            except Refused as refused:
                raise Failed(f"{path.name} cannot be used: {refused.detail}") from refused

    def download(self, job: Job, into: Path) -> Path:
        """Fetch a job's output. Failed unless it has the SHA-256 that the job says."""
        output, digest = job["outputs"][0], hashlib.sha256()
        try:
            with self.http.stream("GET", output["url"]) as answer, open(into, "wb") as file:
                answer.raise_for_status()
                for chunk in answer.iter_bytes():
                    file.write(chunk)
                    digest.update(chunk)
        except httpx.HTTPError as wrong:
            raise Failed(f"{output['url']} could not be fetched: {wrong}.") from wrong
        expect(digest.hexdigest() == output["sha256"], f"{output['name']} came with other bytes than the job says.")
        return into

    def refund(self, job: Job) -> tuple[Job, int]:
        """The ledger's refund of `job` and the balance. Failed unless all that was charged came back."""
        wallet = self.call("GET", "/api/tokens/")
        lines = [line for line in wallet["results"] if job["id"] in line["reference"]]
        back = [line for line in lines if line["kind"] == "REFUND"]
        expect(
            len(back) == 1 and sum(line["amount"] for line in lines) == 0, "The ledger does not show the full refund."
        )
        expect(job["cost"]["refunded"] == job["cost"]["charged"] == back[0]["amount"], "The job shows another refund.")
        return back[0], wallet["balance"]


def expect(true: object, sentence: str) -> None:
    """Failed with `sentence` unless `true`: everything that the demo shows goes through here."""
    if not true:
        raise Failed(sentence)


def run(folder: Path, clips: list[Path], screen: demo_screen.Screen) -> None:
    """Show all of it. Failed, with one sentence, at the first thing that is not true; nothing is left running.

    The film stays in `folder`. `clips` are stitched instead of the renders, if given.
    """
    check_clips(clips)
    folder.mkdir(parents=True, exist_ok=True)
    screen.step("The platform starts: broker, web, workers, Beat")
    with demo_platform.started(folder) as platform:
        screen.say(f"healthy after {platform.wait_until_healthy():.1f} s at {platform.url}")
        key = platform.manage("api_key", "demo", "--create", "--tokens", str(TOKENS))
        with closing(Client(platform.url, key)) as client:
            screen.say(f"user demo has {client.call('GET', '/api/tokens/')['balance']} tokens")
            renders = render_three(client, screen)
            film = stitch(client, screen, folder, renders, clips)
            show_film(screen, film, pictures=0 if clips else len(PROMPTS) * SECONDS * FPS)
            show_ledger(client, screen)
            cancel_half_way(client, screen, platform, renders)
            stitch_half_a_clip(client, screen, platform, renders)
        screen.step("The platform ends")
        platform.stop()
        screen.say("TERM ended it with code 0; none of its processes is left")
    screen.say()
    screen.say(f"All of it was true. The film: {film}")


def check_clips(clips: list[Path]) -> None:
    """Failed if a clip of the user's is not there, before anything is started for it."""
    for clip in clips:
        expect(clip.is_file(), f"There is no file {clip}.")
    expect(len(clips) != 1, "One clip is already a film: name two or more in CLIPS.")
    expect(len(clips) <= 200, f"A film has at most 200 clips; these are {len(clips)}.")


def follow(client: Client, screen: demo_screen.Screen, jobs: list[Job], *, stop_at: float = 2.0) -> list[Job]:
    """Show the jobs' progress until all have ended, or the first is past `stop_at`. Failed if nothing moves."""
    moved, before = time.monotonic(), None
    with screen.bars() as show:
        while True:
            jobs = [client.job(job) for job in jobs]
            show([(client.labels[job["id"]], job["status"], job["progress"], job["stage"]) for job in jobs])
            if all(job["status"] in FINAL for job in jobs) or jobs[0]["progress"] >= stop_at:
                return jobs
            now = [(job["status"], job["progress"], job["stage"]) for job in jobs]
            if now != before:
                moved, before = time.monotonic(), now
            expect(time.monotonic() - moved < PATIENCE, f"No job moved for {PATIENCE:.0f} s.")
            time.sleep(POLL)


def succeeded(client: Client, job: Job) -> Job:
    """The job, if it SUCCEEDED; else Failed with its error."""
    error = job["error"] or {"code": job["status"], "message": job["message"]}
    expect(job["status"] == "SUCCEEDED", f"{client.labels[job['id']]} failed: {error['code']}: {error['message']}")
    return job


def render_three(client: Client, screen: demo_screen.Screen) -> list[Job]:
    screen.step("Three renders, two workers")
    size = {"seconds": SECONDS, "fps": FPS, "width": WIDTH, "height": HEIGHT}
    jobs = [client.submit(f'"{prompt}"', "RENDER", prompt=prompt, seed=7, **size) for prompt in PROMPTS]
    return [succeeded(client, job) for job in follow(client, screen, jobs)]


def stitch(client: Client, screen: demo_screen.Screen, folder: Path, renders: list[Job], clips: list[Path]) -> Path:
    """Join the renders, or the user's clips, and fetch the film."""
    screen.step("Your clips, one film" if clips else "One film of them")
    references = []
    for clip in clips:
        references.append(client.upload(clip))
        screen.say(f"uploaded {clip.name}, {clip.stat().st_size:,} bytes")
    references = references or [f"job:{job['id']}" for job in renders]
    job = follow(client, screen, [client.submit(f"of {len(references)} clips", "STITCH", clips=references)])[0]
    try:
        succeeded(client, job)
    except Failed as failed:
        names = {f"clips.{number}": clip.name for number, clip in enumerate(clips)}
        sentence = str(failed)
        for label in sorted(names, key=len, reverse=True):
            sentence = sentence.replace(label, names[label])
        raise Failed(sentence) from failed
    return client.download(job, folder / "film.part").replace(folder / "film.mp4")


def show_film(screen: demo_screen.Screen, path: Path, *, pictures: int) -> None:
    """Probe the film with PyAV. Failed unless it plays and has as many `pictures` (0: any number), within 2."""
    try:
        with av.open(str(path)) as film:
            video = film.streams.video[0]
            read = decoded = 0
            for packet in film.demux(video):
                read += packet.size > 0
                if decoded < 1000 or not packet.size:
                    decoded += len(packet.decode())
            seconds = float(film.duration or 0) / av.time_base
            streams = [_describe(stream) for stream in film.streams]
    except (av.FFmpegError, IndexError, OSError) as wrong:
        raise Failed(f"The film {path} does not play: {wrong}.") from wrong
    expect(decoded >= min(read, 1000) > 0, f"The film shows {decoded} of {read} pictures.")
    expect(not pictures or abs(read - pictures) <= 2, f"The film has {read} pictures instead of {pictures}.")
    expect(
        not pictures or abs(seconds - pictures / FPS) < 0.1, f"The film has {seconds:.2f} s, not {pictures / FPS} s."
    )
    screen.say(f"{path}")
    screen.say(f"{seconds:.2f} s, {path.stat().st_size:,} bytes, {read} pictures; {'; '.join(streams)}")


def _describe(stream) -> str:
    codec = stream.codec_context.name if stream.codec_context else "data"
    if stream.type == "video":
        return f"video {codec} {stream.width}x{stream.height} {float(stream.average_rate or 0):g} fps"
    return (
        f"audio {codec} {stream.rate} Hz {stream.channels} ch" if stream.type == "audio" else f"{stream.type} {codec}"
    )


def show_ledger(client: Client, screen: demo_screen.Screen) -> None:
    """Every line of the account. Failed unless each job is charged once and the lines add up to the balance."""
    screen.step("The ledger")
    wallet = client.call("GET", "/api/tokens/", params={"limit": 100})
    lines = wallet["results"][::-1]
    for line in lines:
        job = line["reference"].partition(":")[2].rpartition(":")[0]
        what = client.labels.get(job) or line["reason"]
        screen.say(f"{line['kind']:8} {line['amount']:+5}  {line['balance_after']:5}  {what}")
    screen.say(f"balance         {wallet['balance']:5}")
    charged = [line["reference"] for line in lines if line["kind"] == "CHARGE"]
    expect(sorted(charged) == sorted(f"job:{job}:1" for job in client.labels), "Not every job is charged exactly once.")
    expect(sum(line["amount"] for line in lines) == wallet["balance"], "The ledger's lines are not the balance.")


def cancel_half_way(client: Client, screen, platform: demo_platform.Platform, renders: list[Job]) -> None:
    """Cancel a render at 50 %: its FFmpeg was alive, is gone within 2 seconds, and the tokens are back."""
    screen.step("The promise, 1: a render cancelled half-way")
    took = [_time(job["finished_at"]) - _time(job["started_at"]) for job in renders]
    seconds = round(min(60, max(2 * SECONDS, LONG / (sum(took) / len(took) / SECONDS))))  # as fast as this machine is
    size = {"seconds": seconds, "fps": FPS, "width": WIDTH, "height": HEIGHT}
    job = client.submit('"a film nobody waits for"', "RENDER", prompt="a film nobody waits for", **size)
    job = follow(client, screen, [job], stop_at=0.5)[0]
    expect(Path("/proc/self").exists(), "Whether FFmpeg lives is read from /proc, which only Linux has.")
    child = platform.ffmpeg_of(job["id"])
    alive = job["status"] == "RUNNING" and child and child.lives()
    expect(alive, "The render was over before it could be cancelled half-way.")
    screen.say(f"at {job['progress']:.0%} its FFmpeg is alive: pid {child.pid}")
    began = time.monotonic()
    job = client.call("POST", job["urls"]["cancel"])
    expect(job["status"] == "CANCELED", f"Cancelled, the job is {job['status']}.")
    gone = wait(lambda: not child.lives(), GONE_WITHIN - (time.monotonic() - began))
    expect(gone, f"FFmpeg (pid {child.pid}) still lives {GONE_WITHIN:g} s after the cancel.")
    screen.say(f"{job['status']}; no process {child.pid} any more {time.monotonic() - began:.2f} s after the cancel")
    back, balance = client.refund(job)
    screen.say(f"{back['kind']} {back['amount']:+} ({back['reason']}), balance {balance}")


def stitch_half_a_clip(client: Client, screen, platform: demo_platform.Platform, renders: list[Job]) -> None:
    """Stitch a whole clip and half of one: the job fails with the clip's name, and the tokens are back."""
    screen.step("The promise, 2: a stitch with a clip that was cut in half")
    half = client.download(renders[1], platform.home / "half.mp4")
    size = half.stat().st_size
    with open(half, "r+b") as file:
        file.truncate(size // 2)
    clips = [f"job:{renders[0]['id']}", client.upload(half)]
    screen.say(f"uploaded the first {size // 2:,} of {size:,} bytes of {client.labels[renders[1]['id']]}")
    job = follow(client, screen, [client.submit("with half a clip", "STITCH", clips=clips)])[0]
    error = job["error"] or {"code": "", "message": ""}
    named = job["status"] == "FAILED" and error["code"] == "ffmpeg_error" and "clips.1" in error["message"]
    expect(named, f"Half a clip gave {job['status']} {error['code']} instead of ffmpeg_error naming clips.1.")
    screen.say(f"{job['status']} {error['code']}: {error['message']}")
    back, balance = client.refund(job)
    screen.say(f"{back['kind']} {back['amount']:+} ({back['reason']}), balance {balance}")


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether `condition` becomes true within `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
