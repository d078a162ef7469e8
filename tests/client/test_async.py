"""The client to await. It is the same code as the other one: here is what its own half, the waiting, must do."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import jobsite_client
import pytest
from jobsite_client import AsyncClient, Jobsite

from jobs import lifecycle
from jobs.models import Job
from tests import media_files
from tests.client import work
from tests.client.network import Trouble
from tests.waiting import until

pytestmark = pytest.mark.once

SOURCES = Path(__file__).parents[2] / "client" / "src"
CONTENT = os.urandom(700_000)


@pytest.fixture
def client(network, key, naps):
    """client() → Ann's, which does not sleep longer than a moment."""

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        await asyncio.sleep(min(seconds, 0.02))

    return lambda: AsyncClient(network.url, key, timeout=10, sleep=nap)


def calls(of: type) -> set[str]:
    return {name for name in dir(of) if not name.startswith("_") and callable(getattr(of, name))}


def test_both_have_the_same_calls():
    assert calls(AsyncClient) == calls(Jobsite)


def test_a_job_from_its_price_to_its_file(client, dish, tmp_path):
    async def program() -> tuple[list[int], str]:
        async with client() as jobs:
            assert (await jobs.estimate("KITCHEN", dish)).cost == 10
            job = await jobs.submit("KITCHEN", dish, metadata={"scene": 4})
            job = (await jobs.wait(job, timeout=30)).raise_for_outcome()
            (output,) = job.outputs
            assert (await jobs.download(output, tmp_path / "mine.txt")).read_bytes() == b"soup"
            with await jobs.open(output) as file:
                assert file.read() == b"soup"
            amounts = [line.amount async for line in jobs.transactions()]
            assert [one.id async for one in jobs.list(kind="KITCHEN")] == [job.id]
            await jobs.delete(job)
            with pytest.raises(jobsite_client.NotFound):
                await jobs.get(job)
            return amounts, job.metadata

    with work.hand(lambda: work.finish(work.claimed(), tmp_path, dish_txt=b"soup")):
        assert asyncio.run(program()) == ([-10, 1000], {"scene": 4})


def test_a_stream_that_breaks_goes_on_after_its_last_event(client, dish, network, tmp_path):
    """Each time one event comes, and then the line is cut."""
    network.plan.append(Trouble("GET", "/events/", "cut", times=3))
    seen = []

    def cook() -> None:
        lease = work.claimed()
        for progress in (0.25, 0.5, 0.75):
            lifecycle.beat(lease, progress=progress, stage="cooking")
            until(lambda progress=progress: any(job.progress == progress for job in seen))
        work.finish(lease, tmp_path, dish_txt=b"soup")

    async def program() -> None:
        async with client() as jobs:
            async for job in jobs.subscribe("KITCHEN", dish, timeout=30):
                seen.append(job)

    with work.hand(cook):
        asyncio.run(program())
    assert list(dict.fromkeys(job.progress for job in seen if job.stage == "cooking")) == [0.25, 0.5, 0.75]
    assert seen[-1].status == "SUCCEEDED"
    first, *others = [int(one.headers.get("Last-Event-ID", 0)) for one in network.asked("GET", "/events/")]
    assert first == 0 and others and all(others)


def test_many_wait_on_one_client(client, dish, tmp_path):
    async def program() -> list[Job]:
        async with client() as jobs:
            return await asyncio.gather(*(jobs.run("KITCHEN", dish, timeout=60) for _ in range(8)))

    def cook() -> None:
        for _ in range(8):
            work.finish(work.claimed(), tmp_path, dish_txt=b"soup")

    with work.hand(cook):
        made = asyncio.run(program())
    assert len({job.id for job in made}) == 8
    assert {job.status for job in made} == {"SUCCEEDED"}


def test_a_submit_whose_answer_was_lost_is_sold_once(client, dish, network, naps):
    async def program() -> None:
        async with client() as jobs:
            network.plan.append(Trouble("POST", "/api/jobs/", "lost", times=2))
            first = await jobs.submit("KITCHEN", dish)
            network.plan.append(Trouble("POST", "/api/jobs/", "lost", times=5))
            with pytest.raises(jobsite_client.ConnectionFailed) as caught:
                await jobs.submit("KITCHEN", dish)
            second = await jobs.submit("KITCHEN", dish, idempotency_key=caught.value.idempotency_key)
            assert first.id != second.id
            assert await jobs.balance() == 980

    asyncio.run(program())
    keys = [one.headers["Idempotency-Key"] for one in network.asked("POST", "/api/jobs/")]
    assert (len(keys), len(set(keys)), Job.objects.count()) == (9, 2, 2)


def test_pauses_are_those_that_the_platform_asks_for(client, network, naps):
    network.plan.append(Trouble("GET", "/api/tokens/", "429", headers={"Retry-After": "7"}))
    network.plan.append(Trouble("GET", "/api/tokens/", "503"))

    async def program() -> int:
        async with client() as jobs:
            return await jobs.balance()

    assert asyncio.run(program()) == 1000
    assert naps[0] == 7
    assert 0.5 <= naps[1] <= 1


def test_a_download_goes_on_where_it_was_and_is_checked(client, ann, dish, network, tmp_path):
    job, _ = lifecycle.submit(ann.pk, "KITCHEN", dish)
    work.finish(work.claimed(), tmp_path, dish_txt=CONTENT)
    target = tmp_path / "mine"
    target.mkdir()
    network.plan.append(Trouble("GET", "/outputs/", "cut", times=2))

    async def program() -> None:
        async with client() as jobs:
            (output,) = (await jobs.get(str(job.pk))).outputs
            assert (await jobs.download(output, target)).read_bytes() == CONTENT
            network.plan += [Trouble("GET", "/outputs/", "cut"), Trouble("GET", "/outputs/", "unheard", times=5)]
            with pytest.raises(jobsite_client.ConnectionFailed):
                await jobs.download(output, target)
            (part,) = target.glob(".*")
            part.write_bytes(bytes(1000))  # somebody else's
            with pytest.raises(jobsite_client.ChecksumMismatch):
                await jobs.download(output, target)

    asyncio.run(program())
    half = len(CONTENT) // 2
    ranges = [one.headers.get("Range") for one in network.asked("GET", "/outputs/")]
    assert ranges[:3] == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert [path.name for path in target.iterdir()] == ["dish.txt"]  # the first one, as it was


def test_an_upload(client, tmp_path):
    film = tmp_path / "film.mp4"
    film.write_bytes(media_files.clip())

    async def program() -> int:
        async with client() as jobs:
            return (await jobs.upload(film)).bytes

    assert asyncio.run(program()) == film.stat().st_size


@pytest.mark.parametrize("call", ["run", "subscribe"])
@pytest.mark.parametrize("when", ["waiting", "submitting"])
def test_who_cancels_the_task_cancels_the_job(client, dish, network, when, call):
    """Under anyio's scopes (FastAPI's, too), where every further `await` is cancelled again: seen to fail
    unshielded. `submitting`: the job was made and nobody has heard of it."""
    if when == "submitting":
        network.plan.append(Trouble("POST", "/api/jobs/", "lost", times=1))

    async def follow(jobs: AsyncClient) -> None:
        if call == "run":
            await jobs.run("KITCHEN", dish)
        else:
            async for _ in jobs.subscribe("KITCHEN", dish):
                pass

    async def program() -> None:
        async with client() as jobs, anyio.create_task_group() as group:
            if when == "submitting":
                jobs._wire.net._sleep = lambda _: anyio.sleep(60)  # it is on its way to the second try
            group.start_soon(follow, jobs)
            asked = ("POST", "/api/jobs/") if when == "submitting" else ("GET", "/api/jobs/")
            while not network.asked(*asked) or not await anyio.to_thread.run_sync(Job.objects.exists):
                await asyncio.sleep(0.02)
            group.cancel_scope.cancel()

    asyncio.run(program())
    (job,) = Job.objects.all()
    assert job.status == "CANCELED"
    assert len({one.headers["Idempotency-Key"] for one in network.asked("POST", "/api/jobs/")[:-1]}) == 1


def test_who_leaves_the_loop_or_has_no_more_time_leaves_the_job(client, dish):
    async def program() -> str:
        async with client() as jobs:
            job = await anext(jobs.subscribe("KITCHEN", dish))
            with pytest.raises(jobsite_client.JobUnfinished) as caught:
                await jobs.run("KITCHEN", dish, timeout=0.2)
            assert (await jobs.get(caught.value.job_id)).status == "QUEUED"
            return (await jobs.get(job)).status

    assert asyncio.run(program()) == "QUEUED"


PROGRAM = """
import asyncio
from jobsite_client import AsyncClient

async def program():
    async with AsyncClient() as jobs:
        await jobs.run("KITCHEN", on_update=lambda job: print(job.status, flush=True))

asyncio.run(program())
"""


def test_ctrl_c_cancels_the_job(network, key, dish):
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "JOBSITE_URL": network.url, "JOBSITE_KEY": key}
    command = ["env", "--default-signal=INT", sys.executable, "-c", PROGRAM]  # whoever started the tests may ignore it
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.extend(process.stdout), daemon=True)
    reader.start()
    try:
        until(lambda: told, seconds=30)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait(5)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert Job.objects.get().status == "CANCELED"
