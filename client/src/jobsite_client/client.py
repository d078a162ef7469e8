"""What can be asked of a platform, written once: `AsyncClient` is it to await, `sync.Jobsite` to call."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self, TypedDict, TypeVar, Unpack
from urllib.parse import parse_qs, urlsplit

import anyio

from . import config, files
from .errors import JobsiteError, NotFound
from .files import Progress
from .follow import Follow
from .models import Estimate, Job, LogLine, Output, Transaction, Upload
from .net import AsyncNet, Net
from .wire import Wire, json_of

VERSION = "0.1.0"
USER_AGENT = f"jobsite-client/{VERSION}"
T = TypeVar("T")


class Options(TypedDict, total=False):
    """What may be said of a job beside its params."""

    metadata: Mapping[str, Any] | None  # yours; comes back unread
    max_attempts: int | None
    priority: int  # operators only
    deadline_seconds: int | None  # 5 to 604,800; what has not ended by then is cancelled
    idempotency_key: str | None  # the same key and params make one job, however often sent


class Order(NamedTuple):
    """A job to be submitted, as often as it takes."""

    body: dict[str, Any]
    key: str


class Calls:
    """Every call, over a Net that does the waiting."""

    def __init__(self, url: str | None, key: str | None, net: Net, *, timeout: float, retries: int):
        access = config.find(url, key)
        if not access.url or not access.key:
            missing = "address (JOBSITE_URL)" if not access.url else "key (JOBSITE_KEY)"
            raise ValueError(f"There is no {missing}, and `jobsite login` has kept none.")
        self._wire = Wire(access.url, access.key, net, timeout=timeout, retries=retries)

    @property
    def url(self) -> str:
        """The platform's address."""
        return self._wire.url

    async def close(self) -> None:
        """Close its connections."""
        await self._wire.net.close()

    # --- jobs ------------------------------------------------------------------------------------------------------

    async def submit(self, kind: str, params: Mapping[str, Any] | None = None, **options: Unpack[Options]) -> Job:
        """Sell a job; its price is charged now. InsufficientTokens, InvalidRequest … with nothing charged.

        After ConnectionFailed nobody knows whether there is a job: submit again with the error's `idempotency_key`.
        """
        return await self._submit(_order(kind, params, options))

    async def run(
        self,
        kind: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        on_update: Callable[[Job], None] | None = None,
        **options: Unpack[Options],
    ) -> Job:
        """Submit and wait; the job, which SUCCEEDED. JobFailed and JobCanceled say why it did not.

        JobUnfinished after `timeout` seconds: the job goes on, `error.job_id` names it. Ctrl-C cancels the job, then
        raises KeyboardInterrupt as ever; for an AsyncClient that is the cancellation of the task, whoever cancels it.
        """
        async with self._unless_interrupted(_order(kind, params, options)) as job:
            if on_update:
                on_update(job)
            return (await self.wait(job, timeout=timeout, on_update=on_update)).raise_for_outcome()

    async def subscribe(
        self,
        kind: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> AsyncGenerator[Job, None]:
        """Submit, then `stream`: `run` for who iterates. The last job is final, whatever its outcome.

        Ctrl-C while it waits cancels the job, as in `run`; who leaves the loop leaves the job to go on.
        """
        async with (
            self._unless_interrupted(_order(kind, params, options)) as job,
            aclosing(self.stream(job, timeout=timeout)) as updates,
        ):
            async for update in updates:
                yield update

    async def estimate(self, kind: str, params: Mapping[str, Any] | None = None) -> Estimate:
        """What the job would cost now; nothing is charged. InvalidRequest for what submit would refuse."""
        body = {"kind": kind, "params": dict(params or {})}
        return Estimate.of(await self._post("/api/jobs/estimate/", body))

    async def get(self, job: Job | str) -> Job:
        """The job as it is now. NotFound if there is none, or it is somebody else's."""
        return Job.of(await self._wire.json("GET", _path(job)))

    def list(
        self,
        *,
        status: str | Iterable[str] = (),
        kind: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        search: str = "",
        page: int = 100,
    ) -> AsyncGenerator[Job, None]:
        """Your jobs, newest first, a page at a time as you go on; what comes or goes meanwhile shifts nothing.

        `search` is a line of words: `kind:RENDER status:FAILED code:bad_input id:0198c2f1 meta.order:"A 17"`.
        """
        params: dict[str, Any] = {"status": [status] if isinstance(status, str) else [*status], "limit": page}
        params |= {"kind": kind} if kind else {}
        params |= {"created_after": created_after.isoformat()} if created_after else {}
        params |= {"created_before": created_before.isoformat()} if created_before else {}
        params |= {"search": search} if search else {}
        return self._rows("/api/jobs/", params, Job.of)

    def stream(self, job: Job | str, *, timeout: float | None = None) -> AsyncGenerator[Job, None]:
        """The job now, and again whenever something about it changes; the last one is final.

        By live events where the platform has them, else by asking. JobUnfinished after `timeout` seconds; a platform
        that is away for less than five minutes is waited for.
        """
        return Follow(self._wire, _id(job), timeout).changes()

    async def wait(
        self, job: Job | str, *, timeout: float | None = None, on_update: Callable[[Job], None] | None = None
    ) -> Job:
        """The job once it has ended, whatever its outcome. JobUnfinished, with `job_id`, after `timeout` seconds."""
        async with aclosing(self.stream(job, timeout=timeout)) as updates:
            async for update in updates:
                if on_update:
                    on_update(update)
        return update

    async def cancel(self, job: Job | str) -> Job:
        """End a live job at once; what comes back is in its `cost`. A second cancel answers the same. Conflict
        (`job_is_final`) if it had ended otherwise."""
        return Job.of(await self._post(f"{_path(job)}cancel/"))

    async def retry(self, job: Job | str) -> Job:
        """Charge a FAILED job again and queue it for another round. Conflict (`job_not_failed`) for any other."""
        return Job.of(await self._post(f"{_path(job)}retry/"))

    async def delete(self, job: Job | str) -> None:
        """Remove a job and its outputs; a live one is cancelled first."""
        try:
            await self._wire.ask("DELETE", _path(job))
        except NotFound as error:
            if not error.tried:  # else a try whose answer was lost did it
                raise

    async def explain(self, job: Job | str) -> dict[str, Any]:
        """In words: why it waits or failed, what happened, what was booked. Keys: now, timeline, money."""
        return await self._wire.json("GET", f"{_path(job)}explain/")

    async def logs(self, job: Job | str, *, follow: bool = False) -> AsyncGenerator[LogLine, None]:
        """What its runs said, oldest first; `follow`: and what they say until it has ended."""
        after = 0
        while True:
            ended = not follow or (await self.get(job)).is_final  # asked first: its last words must not be missed
            while (found := await self._wire.json("GET", f"{_path(job)}logs/", params={"after": after}))["lines"]:
                for line in found["lines"]:
                    yield LogLine.of(line)
                after = found["after"]
            if ended:
                return
            await self._wire.net.sleep(1.0)

    # --- files -----------------------------------------------------------------------------------------------------

    async def upload(self, path: str | Path, *, name: str = "", progress: Progress | None = None) -> Upload:
        """Bring a file for jobs to read: pass the answer's `reference` in params. Never whole in memory, its SHA-256
        compared. `progress(bytes done, bytes in all)` is called on the way."""
        return await files.upload(self._wire, Path(path), name=name, progress=progress)

    async def download(self, output: Output, path: str | Path = ".", *, progress: Progress | None = None) -> Path:
        """Fetch an output into a file, or under its own name into a folder; returns the file.

        It appears there only whole and with the right SHA-256. What broke off is taken up where it was, also by a
        later call. Gone if the platform no longer has it.
        """
        return await files.download(self._wire, output, Path(path), progress=progress)

    async def open(self, output: Output, *, progress: Progress | None = None) -> BinaryIO:
        """An output as an open file, to read and to seek in: whole, its SHA-256 compared. It is on disk while you have
        it open and has no name; `with` or `close()` removes it."""
        return await files.opened(self._wire, output, progress=progress)

    # --- tokens ----------------------------------------------------------------------------------------------------

    async def balance(self) -> int:
        """Whole tokens in your account."""
        return int((await self._wire.json("GET", "/api/tokens/", params={"limit": 1}))["balance"])

    def transactions(self, *, page: int = 100) -> AsyncGenerator[Transaction, None]:
        """Your ledger's lines, newest first."""
        return self._rows("/api/tokens/", {"limit": page}, Transaction.of)

    # --- what they share -------------------------------------------------------------------------------------------

    async def _submit(self, order: Order, *, retries: int | None = None) -> Job:
        headers = {"Idempotency-Key": order.key}
        answer = await self._wire.ask(
            "POST", "/api/jobs/", body=lambda: {"json": order.body}, headers=headers, retries=retries
        )
        return Job.of(json_of(answer))

    @asynccontextmanager
    async def _unless_interrupted(self, order: Order) -> AsyncIterator[Job]:
        """The submitted job; an interrupt, then or in the body, cancels it and says so in a note."""
        job, net = None, self._wire.net
        try:
            job = await self._submit(order)
            yield job
        except net.interrupt() as interrupt:
            with net.shielded():
                try:
                    # No answer yet, but a job perhaps: the same key finds it, or makes one that ends before it begins.
                    job = job or await self._submit(order, retries=0)
                    interrupt.add_note(f"Job {job.id} is {(await self.cancel(job)).status}.")
                except JobsiteError as error:
                    name = job.id if job else f"with key {order.key}"
                    interrupt.add_note(f"Job {name} was not cancelled: {error}")
            raise

    async def _post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return await self._wire.json("POST", path, body=lambda: {} if body is None else {"json": body}, headers=headers)

    async def _rows(
        self, path: str, params: dict[str, Any], of: Callable[[dict[str, Any]], T]
    ) -> AsyncGenerator[T, None]:
        while True:
            found = await self._wire.json("GET", path, params=params)
            for row in found["results"]:
                yield of(row)
            if not found.get("next"):
                return
            # the cursor alone: where the next page is, the first one has said
            params = params | {"cursor": parse_qs(urlsplit(found["next"]).query)["cursor"][0]}


class AsyncClient(Calls):
    """What `Jobsite` is, to await: the same arguments, calls and errors. Under asyncio.

    Use it in an `async with`, or `await client.close()`.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 4,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ):
        net = AsyncNet(timeout=timeout, user_agent=USER_AGENT, sleep=sleep)
        super().__init__(url, key, net, timeout=timeout, retries=retries)

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


def _order(kind: str, params: Mapping[str, Any] | None, options: Options) -> Order:
    body: dict[str, Any] = {"kind": kind, "params": dict(params or {})}
    metadata = options.get("metadata")
    body |= {"metadata": dict(metadata)} if metadata else {}
    body |= {name: options[name] for name in ("max_attempts", "priority") if options.get(name)}
    deadline = options.get("deadline_seconds")
    body |= {} if deadline is None else {"deadline_seconds": deadline}
    return Order(body, options.get("idempotency_key") or str(uuid.uuid4()))


def _id(job: Job | str) -> str:
    """ValueError for what is no job's id, before it becomes part of an address."""
    return str(uuid.UUID(job.id if isinstance(job, Job) else job))


def _path(job: Job | str) -> str:
    return f"/api/jobs/{_id(job)}/"
