"""Every error that a job or a request can end in: one table, asked by the runner, the API and the pages.

A code answers four questions: may the job be tried again, do the tokens come back, which HTTP status, what can the
user do. `docs/errors.md` lists the same rows; a test compares them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Row:
    """One line of the table; `http` is the status a request answers with, for job codes as seen by an API caller."""

    sentence: str  # for the user: what happened
    advice: str  # for the user: what to do
    retryable: bool = False  # another attempt may help
    refund: bool = True  # a job FAILED with this code gives its tokens back
    http: int = 500


class ErrorCode(Enum):
    """A member's name is the code that users, rows and logs carry; its value is the `Row`."""

    # How an attempt or a job ends
    config_error = Row("The platform is not set up for this job.", "Tell the operator; your tokens are back.", http=503)
    internal_error = Row("Something unexpected went wrong.", "Try again; tell the operator if it happens twice.", True)
    user_canceled = Row("The job was cancelled.", "Submit it again if you still need it.", http=409)
    deadline_passed = Row(
        "The job was not finished by the deadline it was submitted with.", "Submit it with more time.", http=504
    )
    manual_intervention = Row("The operator ended the job.", "Ask the operator why.", http=409)
    worker_timeout = Row("The worker stopped reporting.", "Try again; the platform has ended the job.", True)
    worker_lost = Row("The worker's process died.", "Try again.", True)
    worker_shutdown = Row("The worker was shut down.", "Try again.", True, http=503)
    timeout = Row("The job ran longer than its time limit.", "Ask for less work in one job.", http=504)
    stalled = Row(
        "The job stopped making progress.", "Try again; ask for less work if it happens twice.", True, http=504
    )
    out_of_memory = Row("The job needed more memory than it may use.", "Use smaller inputs or a smaller size.", True)
    gpu_out_of_memory = Row("The job needed more GPU memory than there is.", "Use a smaller size.", True)
    bad_input = Row("An input cannot be used.", "Correct the named input and submit again.", http=400)
    input_not_found = Row(
        "An input does not exist, is not finished or is not yours.", "Name one of your own.", http=400
    )
    input_gone = Row("An input was removed before the job could read it.", "Upload it again.", http=410)
    ffmpeg_error = Row("FFmpeg could not process the media.", "Check the named clip in a player; replace it.", http=422)
    storage_error = Row("The storage did not take or give a file.", "Try again later.", True, http=507)
    runpod_submit_error = Row("RunPod did not accept the job.", "Try again later.", True, http=502)
    runpod_execution_error = Row("The job failed on RunPod.", "Try again; change the parameters.", True, http=502)
    provider_error = Row("An outside service failed.", "Try again later.", True, http=502)
    sandbox_missing = Row("This host cannot run media jobs safely.", "Tell the operator.", http=503)
    processing_error = Row("The data could not be processed.", "Check the file and submit again.", http=422)

    # How a request is refused; nothing is written
    invalid_request = Row("The request is not valid.", "Correct the named fields.", http=400)
    not_authenticated = Row(
        "No valid key or session came with the request.", "Send Authorization: Bearer <key>.", http=401
    )
    permission_denied = Row("This key or account may not do that.", "Use a key with the needed scope.", http=403)
    not_found = Row("There is no such thing, or it is not yours.", "Check the address and the id.", http=404)
    method_not_allowed = Row("This address does not take that method.", "See /api/docs/.", http=405)
    not_acceptable = Row("The answer cannot be given in that form.", "Accept application/json.", http=406)
    insufficient_tokens = Row("The account has too few tokens.", "Buy tokens or ask for less.", http=402)
    job_is_final = Row("The job has already ended.", "Nothing needs to be done; read its status.", http=409)
    job_not_failed = Row("Only a FAILED job can be retried.", "Submit a new job.", http=409)
    job_in_use = Row("A live job needs this one's outputs.", "Wait until it has ended or cancel it.", http=409)
    upload_in_use = Row("A job needs this upload.", "Delete the job first.", http=409)
    multipart_unavailable = Row(
        "This platform takes no uploads in parts; send the file to /api/uploads/.", "Send it in one piece.", http=409
    )
    reference_used = Row("This reference was booked before.", "Use a new reference.", http=409)
    too_many_webhooks = Row("The account has as many webhooks as it may have.", "Delete one first.", http=409)
    too_many_uploads = Row(
        "Your uploads that no job uses take as much room as they may.",
        "Submit the jobs they are for, or delete some.",
        http=409,
    )
    webhook_muted = Row("This webhook is muted.", "Switch it on first.", http=409)
    too_large = Row("The request is larger than allowed.", "Send less.", http=413)
    unsupported_media_type = Row("This type of content is not taken here.", "Send application/json.", http=415)
    idempotency_key_reused = Row("This Idempotency-Key came with another body before.", "Use a new key.", http=422)
    too_many_jobs = Row("Too many of your jobs are active.", "Wait until some have ended.", http=429)
    rate_limited = Row("Too many requests.", "Wait for the seconds in Retry-After.", http=429)
    output_gone = Row("The output is no longer stored.", "Run the job again.", http=410)
    database_unavailable = Row("The database does not answer.", "Try again in a few seconds.", http=503)
    storage_full = Row("The storage is full or refuses writes.", "Try again later.", http=507)

    @property
    def row(self) -> Row:
        return self.value

    def __repr__(self) -> str:
        return f"ErrorCode.{self.name}"

    # Rows may be equal in value by accident; members must stay distinct, so identity is the name.
    def __hash__(self) -> int:
        return hash(self.name)


class JobError(Exception):
    """An attempt ended in `code`; `message` is for the user (no secrets, no paths), `retryable` overrides the table.

    `postpone`: the work could not begin (an outside service is known to be down); it is tried again after so many
    seconds, and no attempt is spent. `said`: the last lines of the program that failed, for the job's log.
    """

    said: Sequence[str] = ()

    def __init__(
        self, code: ErrorCode, message: str = "", *, retryable: bool | None = None, postpone: float | None = None
    ):
        super().__init__(message or code.row.sentence)
        self.code = code
        # It may quote anybody, and must come into its row: no database takes NUL or half a surrogate pair in a text.
        self.message = str(self).replace("\0", "").encode("utf-8", "replace").decode("utf-8")[:1000]
        self.retryable = code.row.retryable if retryable is None else retryable
        self.postpone = postpone


class Refused(Exception):
    """A request that is refused with nothing written. `fields` are (name, code, detail) of what was wrong in it."""

    def __init__(self, code: ErrorCode, detail: str = "", *, fields=(), retry_after: float | None = None):
        super().__init__(detail or code.row.sentence)
        self.code = code
        self.detail = str(self)
        self.fields = list(fields)
        self.retry_after = retry_after  # seconds


class LeaseLost(Exception):
    """This attempt no longer holds the job: it was cancelled, reaped or claimed again. Nothing was written."""
