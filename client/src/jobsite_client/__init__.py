"""Jobsite's client: submit, watch, cancel and download jobs. `Jobsite` does it all, `AsyncClient` to
await; errors are `JobsiteError`s."""

from .client import VERSION as __version__
from .client import AsyncClient
from .errors import (
    ApiError,
    ChecksumMismatch,
    Conflict,
    ConnectionFailed,
    FieldError,
    Gone,
    InsufficientTokens,
    InvalidRequest,
    JobCanceled,
    JobFailed,
    JobsiteError,
    JobUnfinished,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    ServerError,
    TooManyRequests,
    UnexpectedAnswer,
)
from .models import Cost, Estimate, Failure, Job, LogLine, Output, Transaction, Upload
from .sync import Jobsite

__all__ = [
    "ApiError",
    "AsyncClient",
    "ChecksumMismatch",
    "Conflict",
    "ConnectionFailed",
    "Cost",
    "Estimate",
    "Failure",
    "FieldError",
    "Gone",
    "InsufficientTokens",
    "InvalidRequest",
    "Job",
    "JobCanceled",
    "JobFailed",
    "JobUnfinished",
    "Jobsite",
    "JobsiteError",
    "LogLine",
    "NotAuthenticated",
    "NotFound",
    "Output",
    "PermissionDenied",
    "ServerError",
    "TooManyRequests",
    "Transaction",
    "UnexpectedAnswer",
    "Upload",
    "__version__",
]
