"""What the platform answers, as frozen objects. Fields that a newer platform adds are in `raw` alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self

from .errors import JobCanceled, JobFailed

FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELED"})


class _Object:
    """A dataclass that is made from a JSON object: by the names of its fields, the rest is left out."""

    @classmethod
    def of(cls, data: Mapping[str, Any], **more: Any) -> Self:
        """KeyError if a field without a default is missing."""
        known: dict[str, Any] = {}
        for each in fields(cls):  # type: ignore[arg-type]  # its subclasses are dataclasses
            if each.name in data:
                value = data[each.name]
                is_time = each.name.endswith("_at") and isinstance(value, str)
                known[each.name] = datetime.fromisoformat(value) if is_time else value
        return cls(**(known | more))


@dataclass(frozen=True)
class Output(_Object):
    """A file that a job made; `Jobsite.download` fetches it."""

    job_id: str
    name: str
    bytes: int
    sha256: str
    content_type: str
    expires_at: datetime | None = None
    url: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True)
class Failure(_Object):
    """Why a job ended without its outputs."""

    code: str
    message: str
    retryable: bool = False
    refunded: bool = False
    docs: str = ""


@dataclass(frozen=True)
class Cost(_Object):
    """Whole tokens, as the ledger has them."""

    estimate: int
    charged: int
    refunded: int


@dataclass(frozen=True)
class Job(_Object):
    """A job as it was when it was asked for. `status` is QUEUED, RUNNING, RETRY, SUCCEEDED, FAILED or CANCELED."""

    id: str
    kind: str
    status: str
    params: Mapping[str, Any]
    cost: Cost
    created_at: datetime
    outputs: tuple[Output, ...] = ()
    error: Failure | None = None
    status_hint: str | None = None  # `warming_gpu` while a GPU starts
    stage: str = ""
    progress: float = 0.0  # 0.0 to 1.0
    message: str = ""
    queue_position: int | None = None  # 1 is next
    eta_seconds: float | None = None
    attempt: int = 0
    max_attempts: int = 1
    metadata: Mapping[str, Any] = field(default_factory=dict)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, data: Mapping[str, Any], **more: Any) -> Self:
        return super().of(
            data,
            cost=Cost.of(data["cost"]),
            outputs=tuple(Output.of(one, job_id=data["id"]) for one in data.get("outputs") or ()),
            error=Failure.of(data["error"]) if data.get("error") else None,
            raw=data,
            **more,
        )

    @property
    def is_final(self) -> bool:
        """It has ended, one way or another."""
        return self.status in FINAL

    def raise_for_outcome(self) -> Self:
        """Itself, unless it FAILED (JobFailed) or was cancelled (JobCanceled)."""
        if self.status == "CANCELED":
            raise JobCanceled(self)
        if self.status == "FAILED":
            raise JobFailed(self)
        return self


@dataclass(frozen=True)
class Estimate(_Object):
    """What a job would cost, and its params with their defaults. `cancel_refund` is what a cancel of the running job
    gives back."""

    kind: str
    params: Mapping[str, Any]
    cost: int  # tokens
    cancel_refund: str = ""

    @classmethod
    def of(cls, data: Mapping[str, Any], **more: Any) -> Self:
        return super().of(data, cost=data["cost"]["estimate"], **more)


@dataclass(frozen=True)
class Upload(_Object):
    """A file that was brought: `reference` is what params take."""

    id: str
    reference: str
    name: str
    bytes: int
    sha256: str
    content_type: str
    created_at: datetime


@dataclass(frozen=True)
class Transaction(_Object):
    """A line of the ledger: `amount` is signed whole tokens."""

    id: int
    kind: str
    amount: int
    balance_after: int
    reference: str
    reason: str
    created_at: datetime


@dataclass(frozen=True)
class LogLine(_Object):
    """What a job's run said of its work."""

    id: int
    attempt: int
    at: str  # ISO 8601
    text: str
