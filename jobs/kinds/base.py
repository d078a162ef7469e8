"""What a kind of job is, and what its `run` is given. A kind knows nothing of Celery, the ORM or processes."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol
from uuid import UUID

from rest_framework import serializers

from jobs.engines.breaker import Breaker
from jobs.engines.remote import RemoteCall


@dataclass(frozen=True)
class Limits:
    """Seconds. `run`: an attempt's whole time; `stall`: without progress or sign of life; `attempts`: tries a round."""

    run: float = 1800.0
    stall: float = 60.0
    attempts: int = 3


class Run(Protocol):
    """What `Kind.run` is given: one attempt. Every call raises `Abort` once the attempt is to end; let it pass."""

    job_id: UUID
    params: dict[str, Any]
    workdir: Path  # made when it is first asked for: empty, private, deleted afterwards

    def input(self, reference: str) -> Path:
        """The local path of an input (`upload:<id>`, `job:<id>[/<name>]`). JobError(input_gone) if it is not there."""

    def fetch_key(self, key: str) -> Path:
        """The local path of a copy of a file that the operator keeps in the storage, beside the platform's own.

        JobError: bad_input for a key that `fields.key_problem` refuses or a file over UPLOAD_MAX_BYTES, input_gone
        (tried again: it may come yet) if there is none, storage_error if reading fails.
        """

    def progress(self, fraction: float, stage: str | None = None) -> None:
        """How far the work is, 0.0 to 1.0; moving it is what tells work from a hang. How long each `stage` takes is
        kept by its name: what differs from job to job goes behind a colon (`encoding: clips.2`)."""

    def log(self, text: str) -> None:
        """Lines for the job's own log, which its owner reads: what was found and done, no secrets, no paths. Each new
        stage, and what a failing FFmpeg or tool said last, are in it already. 500 lines of 300 characters are kept."""

    def alive(self) -> None:
        """A sign of life without progress: resets the stall clock."""

    def check(self) -> None:
        """Raise `Abort` if the attempt is to end; call it in loops of your own."""

    def ffmpeg(self, args: list[str], *, seconds: float, start: float = 0.0, end: float = 1.0) -> None:
        """Run FFmpeg in the work folder behind the media walls; its output time moves progress from `start` to `end`.

        `args` are FFmpeg's arguments from the first input on; `seconds` is how long the output is expected to be.
        JobError(ffmpeg_error) with FFmpeg's last words if it fails.
        """

    def tool(
        self,
        module: str,
        task: dict[str, Any],
        *,
        memory_bytes: int | None = None,
        start: float = 0.0,
        end: float = 1.0,
    ) -> dict[str, Any]:
        """What the Python module answers to `task`: a child in the work folder behind the media walls, with at most
        `memory_bytes` of address space (MEDIA_MEMORY_BYTES unless told); see `jobs.engines.tool`.

        Its own progress moves the run's from `start` to `end`. Raises the JobError that it says.
        """

    def breaker(self, target: str) -> Breaker:
        """The circuit breaker of an outside service, shared by all workers (`llm`, `runpod`)."""

    def remote(self, provider: str, seconds: float) -> RemoteCall:
        """The row of a request to an outside service that will be over in `seconds`: written before it is sent.

        If an earlier attempt made one and nobody knows how it ended, this attempt takes that one over.
        """

    def time_left(self) -> float:
        """Seconds of the run limit that are left, at least one."""

    def output(self, path: Path, name: str, content_type: str = "video/mp4") -> None:
        """Name a finished file as an output; it is published only if the job succeeds.

        It is read in a thread from now on, so name it as soon as nothing writes to it any more, and check it after.
        """


class Abort(BaseException):
    """Raised inside `Kind.run` when the attempt is to end (cancel, lost lease, limit, shutdown). Not an Exception,
    so that a kind's `except Exception` does not swallow it."""


class InputField(serializers.RegexField):
    """A reference to a file of the same owner: `upload:<id>` or `job:<id>[/<output name>]`.

    `accepts` are the content types that this field takes, whole (`image/png`) or their first part (`video`). An upload
    that is cut short is refused by the submit, unless the kind itself tells of it (`takes_cut`).
    """

    default_error_messages = {"invalid": "Must be upload:<id> or job:<id> or job:<id>/<output name>."}
    PATTERN = r"^(upload:[0-9a-fA-F-]{32,36}|job:[0-9a-fA-F-]{32,36}(/[A-Za-z0-9._-]{1,100})?)\Z"

    def __init__(self, *, accepts: tuple[str, ...] = ("video",), takes_cut: bool = False, **options):
        super().__init__(self.PATTERN, max_length=200, **options)
        self.accepts, self.takes_cut = accepts, takes_cut

    def problem(self, content_type: str, *, cut: bool) -> str:
        """Why this field does not take such a file, as what stands behind the file's name; empty if it does."""
        if not {content_type, content_type.partition("/")[0]} & {*self.accepts}:
            return f"is {content_type}, not {' or '.join(self.accepts)}."
        return "is cut short: the file ends in the middle." if cut and not self.takes_cut else ""


class Kind:
    """One kind of job. Subclass, fill in the class attributes, decorate with `@register`."""

    name: ClassVar[str]
    queue: ClassVar[str] = "cpu"
    limits: ClassVar[Limits] = Limits()
    tiers: ClassVar[tuple[str, ...]] = ()  # all that `tier` may answer
    media: ClassVar[bool] = True  # reads user media: refused in production where the media walls are missing
    for_operators: ClassVar[frozenset[str]] = frozenset()  # params that reach beyond the caller's own things
    fixed: ClassVar[dict[str, Any]] = {}  # params that the submit page sets itself, except for operators
    Params: ClassVar[type[serializers.Serializer]]

    @classmethod
    def about(cls) -> str:
        """What the kind says of itself, as plain text: the first paragraph of its docstring."""
        return (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("`", "").replace("\n", " ")

    def price(self, params: dict[str, Any]) -> int:
        """Whole tokens, 0 to 1,000,000, from validated params. Pure: the same params, the same price."""
        raise NotImplementedError(self.name)

    def price_of_inputs(self, sizes: dict[str, int]) -> int:
        """Whole tokens on top of `price` for the inputs' sizes: bytes by reference. Pure, too."""
        return 0

    def tier(self, params: dict[str, Any]) -> str:
        """The size class (`1K`, `2K`, `4K`) for prices and limits, or empty."""
        return ""

    def limits_for(self, params: dict[str, Any]) -> Limits:
        """The limits that a job of these params is sold with; `limits` must be the widest of them."""
        return self.limits

    def inputs(self, params: dict[str, Any]) -> Iterator[tuple[str, str, InputField]]:
        """(name, reference, its field) of every input in validated params, which are resolved at submit."""
        for name, field, inner in _input_fields(type(self)):
            value = params.get(name) or ()
            if field is inner:
                if value:
                    yield name, value, inner
            else:
                for index, reference in enumerate(value):
                    yield f"{name}.{index}", reference, inner

    def run(self, run: Run) -> None:
        """Do the work. Raise JobError to end it with a code; return when every output has been named."""
        raise NotImplementedError(self.name)


@cache
def _input_fields(kind: type[Kind]) -> list[tuple[str, serializers.Field, InputField]]:
    """(name, param, its own or its list's field) of the params that name inputs; found once, every submit asks."""
    found: list[tuple[str, serializers.Field, InputField]] = []
    for name, field in kind.Params().fields.items():
        inner = getattr(field, "child", field)
        if isinstance(inner, InputField):
            found.append((name, field, inner))
    return found


REGISTRY: dict[str, Kind] = {}


def register(cls: type[Kind]) -> type[Kind]:
    """Class decorator: make the kind known under its name. ValueError if the name is taken by another class."""
    known = REGISTRY.get(cls.name)
    if known is not None and type(known) is not cls:
        raise ValueError(f"kind {cls.name} is registered twice")
    REGISTRY[cls.name] = cls()
    return cls
