"""What can go wrong, as types: every one is a JobsiteError, and none of them holds the key."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .models import Job


class JobsiteError(Exception):
    """`job_id` is the job it was about, where one is known: the job goes on without you, and can be asked for again."""

    job_id: str | None = None


class ConnectionFailed(JobsiteError):
    """No answer came, after all tries. What was asked may have been done or not: `idempotency_key` is what it was sent
    with, and the same request with the same key does it once."""

    def __init__(self, message: str, *, idempotency_key: str | None = None):
        super().__init__(message)
        self.idempotency_key = idempotency_key


class UnexpectedAnswer(JobsiteError):
    """An answer came that no Jobsite gives: a redirect, or a page instead of JSON. The address may be wrong."""


class ChecksumMismatch(JobsiteError):
    """The bytes that came are not those that the job made. Nothing was put in place."""


class FieldError(NamedTuple):
    """One thing that was wrong in a request."""

    field: str
    code: str
    detail: str


class ApiError(JobsiteError):
    """The platform refused: `code` is stable and listed in its docs/errors.md, `detail` is for people."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        fields: tuple[FieldError, ...] = (),
        request_id: str = "",
        retryable: bool = False,
        docs: str = "",
        retry_after: float | None = None,
        idempotency_key: str | None = None,
    ):
        super().__init__(f"{code or status}: {detail}" + "".join(f"\n  {one.field}: {one.detail}" for one in fields))
        self.status = status
        self.code = code
        self.detail = detail
        self.fields = fields
        self.request_id = request_id
        self.retryable = retryable  # the same request may succeed later
        self.docs = docs
        self.retry_after = retry_after  # seconds
        self.idempotency_key = idempotency_key  # what it was sent with, to send it again
        self.tried = 0  # tries before this answer, which may have been heard


class InvalidRequest(ApiError):
    """400, 413, 415, 422: the request itself is wrong; `fields` says where."""


class NotAuthenticated(ApiError):
    """401: no key, or one that is unknown, expired or revoked."""


class InsufficientTokens(ApiError):
    """402: nothing was charged, nothing was made."""


class PermissionDenied(ApiError):
    """403: this key may not do that."""


class NotFound(ApiError):
    """404: it is not there, or not yours."""


class Conflict(ApiError):
    """409: not in the state that it is in."""


class Gone(ApiError):
    """410: it was there, and is no longer stored."""


class TooManyRequests(ApiError):
    """429: come again in `retry_after` seconds."""


class ServerError(ApiError):
    """5xx: the platform's own trouble."""


BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: NotAuthenticated,
    402: InsufficientTokens,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: TooManyRequests,
}


class JobUnfinished(JobsiteError, TimeoutError):
    """Your time was up and the job goes on. `job` is how it was last seen."""

    def __init__(self, job: Job):
        super().__init__(f"Job {job.id} is still {job.status}; it goes on and can be waited for again.")
        self.job, self.job_id = job, job.id


class JobFailed(JobsiteError):
    """The job ended FAILED: `code` and `message` say why, `refunded` is how many tokens came back."""

    def __init__(self, job: Job):
        self.job, self.job_id = job, job.id
        self.code = job.error.code if job.error else ""
        self.message = job.error.message if job.error else job.message
        self.retryable = bool(job.error and job.error.retryable)
        self.refunded = job.cost.refunded
        super().__init__(f"Job {job.id} failed: {self.code}: {self.message}")


class JobCanceled(JobFailed):
    """The job was cancelled, by you or by the operator: also a JobFailed, since there are no outputs."""

    def __init__(self, job: Job):
        super().__init__(job)
        self.args = (f"Job {job.id} was cancelled.",)
