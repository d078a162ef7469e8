"""`jobsite`, or `python -m jobsite_client`: runs a command and turns its outcome into an exit code."""

from __future__ import annotations

import sys

from .errors import (
    ApiError,
    ChecksumMismatch,
    ConnectionFailed,
    InvalidRequest,
    JobCanceled,
    JobFailed,
    JobsiteError,
    JobUnfinished,
    ServerError,
    UnexpectedAnswer,
)

CODES: list[tuple[type[Exception], int]] = [  # the first that fits
    (JobCanceled, 3),
    (JobFailed, 1),
    (JobUnfinished, 4),
    (InvalidRequest, 2),
    (ServerError, 5),
    (ConnectionFailed, 5),
    (UnexpectedAnswer, 5),
    (ApiError, 6),
    (ChecksumMismatch, 7),
    (OSError, 7),
    (JobsiteError, 6),
]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    try:
        from .cli import app
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{error}. Install the commands with: pip install 'jobsite-client[cli]'\n")
        return 2
    try:
        return int(app(arguments, prog_name="jobsite", standalone_mode=True) or 0)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 2
    except BrokenPipeError:
        sys.stderr.close()  # whoever read has gone, and wants no word about it
        return 0
    except (JobsiteError, OSError) as error:
        sys.stderr.write(f"{_told(error)}\n")
        return next(code for kind, code in CODES if isinstance(error, kind))


def _told(error: Exception) -> str:
    text = str(error)
    request_id = getattr(error, "request_id", "")
    job_id = getattr(error, "job_id", None)
    text += f"\n(request {request_id})" if request_id else ""
    text += f"\n(job {job_id})" if job_id and job_id not in text else ""
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text)


if __name__ == "__main__":
    sys.exit(main())
