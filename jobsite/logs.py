"""Log lines: one a record whatever is in it, secrets taken out at this one place, files rotated between processes."""

import fcntl
import logging
import os
import re
import sys
import time
from datetime import UTC, datetime
from functools import lru_cache
from logging.handlers import WatchedFileHandler
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from structlog.contextvars import get_contextvars

# Control characters could forge lines (CR, LF), colour a terminal (ESC) or turn text around (bidi marks).
_UNSAFE = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {code: chr(code).encode("unicode_escape").decode() for code in _UNSAFE}
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in _UNSAFE}

_SECRETS: list[tuple[list[str], re.Pattern, str]] = [  # words of which one must be there, pattern, what replaces it
    (["js_"], re.compile(r"\bjs_[A-Za-z0-9_-]{16,}"), "js_***"),  # our own API keys, wherever they stand
    (["jst_"], re.compile(r"\bjst_[A-Za-z0-9_:-]{16,}"), "jst_***"),  # stream tokens, which stand in addresses
    (["whsec_"], re.compile(r"\bwhsec_[A-Za-z0-9+/=]{16,}"), "whsec_***"),
    (
        ["bearer", "basic", "token"],
        re.compile(r"\b(Bearer|Basic|Token)(\s+|%20)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE),
        r"\1 ***",
    ),
    (
        ["password", "secret", "api", "authorization"],
        re.compile(r"\b(password|secret|api_?key|authorization)(['\"]?\s*[:=]\s*['\"]?)[^\s'\",;&}]+", re.IGNORECASE),
        r"\1\2***",
    ),
    (["://"], re.compile(r"(\w://[^\s/:@]*:)[^\s/@]+@"), r"\1***@"),
]


@lru_cache(maxsize=1)
def _known_secrets() -> tuple[str, ...]:
    """Values of settings that must never be read in a log, longest first."""
    from django.conf import settings

    own = settings.JOBSITE
    values = [settings.SECRET_KEY, settings.CRON_SECRET, settings.ADMIN_API_KEY, settings.EMAIL_HOST_PASSWORD]
    values += [
        own["RUNPOD_API_KEY"],
        own["LLM_KEY"],
        own["ALERT_WEBHOOK_URL"],
        own["METRICS_TOKEN"],
        own["PING_URL"],
        own["SENTRY_DSN"],
        settings.AWS_SECRET,
        settings.AWS_TOKEN,
    ]
    values.append(settings.DATABASES["default"].get("PASSWORD") or "")
    written = [urlsplit(url).password or "" for url in settings.CELERY_BROKER_URL.split(";")]
    values += [*written, *map(unquote, written)]  # %2F in the URL is / to the server
    return tuple(sorted({value for value in values if value and len(value) >= 4}, key=len, reverse=True))


def redact(text: str) -> str:
    """`text` without bearer keys, passwords in fields and URLs, and the values of the secret settings."""
    for secret in _known_secrets():
        text = text.replace(secret, "***")
    folded = text.casefold()
    for words, pattern, put in _SECRETS:
        if any(word in folded for word in words):  # a pattern's own search takes fifty times as long
            text = pattern.sub(put, text)
    return text


class WithoutProbes(logging.Filter):
    """For Django's request log: a red /health is the answer to its caller, not a failure of the request."""

    def filter(self, record: logging.LogRecord) -> bool:
        path = getattr(getattr(record, "request", None), "path", "")
        return not (getattr(record, "status_code", None) == 503 and path.strip("/") in ("health", "readyz"))


class LineFormatter(logging.Formatter):
    """`time level logger message [what it was about]`: UTC, exactly one line, no control characters, no secrets.

    What it was about are the words bound to the request or the attempt: request_id, user_id, job_id, attempt, kind.
    """

    converter = time.gmtime

    def __init__(self):
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if about := get_contextvars():
            line += f" [{' '.join(f'{name}={value}' for name, value in sorted(about.items()))}]"
        line = redact(line)
        return line if line.isprintable() else line.translate(_ESCAPES)


class ColourFormatter(LineFormatter):
    """The same for a terminal, tinted by its level. The colour is put around a line that is clean already."""

    TINTS = {"DEBUG": 2, "WARNING": 33, "ERROR": 31, "CRITICAL": 41}

    def format(self, record: logging.LogRecord) -> str:
        line, tint = super().format(record), self.TINTS.get(record.levelname)
        return f"\x1b[{tint}m{line}\x1b[0m" if tint else line


def terminal_formatter() -> logging.Formatter:
    """Tinted lines where a person looks on (and does not refuse them by NO_COLOR), plain ones in a pipe."""
    return ColourFormatter() if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else LineFormatter()


def json_formatter() -> logging.Formatter:
    """One JSON object a line: timestamp, level, logger, event, what it was about, and exception. Takes the lines of
    structlog's loggers and of the standard library's alike."""
    return structlog.stdlib.ProcessorFormatter(
        processors=[
            _from_record,
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            _without_secrets,
            structlog.processors.JSONRenderer(ensure_ascii=False),
            _on_one_line,
        ],
    )


def _from_record(logger: Any, name: str, event: dict[str, Any]) -> dict[str, Any]:
    """Time, level and logger before the rest."""
    record = event.pop("_record")
    del event["_from_structlog"]
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return {"timestamp": at, "level": record.levelname.lower(), "logger": record.name, **event}


def _without_secrets(logger: Any, name: str, event: dict[str, Any]) -> dict[str, Any]:
    """Before it is rendered: a secret with a quote in it looks different afterwards."""
    return {key: value if isinstance(value, (int, float)) else redact(str(value)) for key, value in event.items()}


def _on_one_line(logger: Any, name: str, text: str) -> str:
    return text if text.isprintable() else text.translate(_JSON_ESCAPES)


class RotatingHandler(WatchedFileHandler):
    """A log file that several processes append to, a worker and its pool children say, and that one of them renames to
    `<name>.1` … `<name>.<keep>` once it has `limit` bytes; the others notice and reopen."""

    def __init__(self, filename: str | os.PathLike, *, limit: int = 10_000_000, keep: int = 3):
        super().__init__(filename, delay=True, encoding="utf-8", errors="backslashreplace")
        self.limit, self.keep = limit, keep

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if os.path.getsize(self.baseFilename) >= self.limit:
                self._rotate()
        except FileNotFoundError:
            pass  # the first line makes it
        except OSError:
            self.handleError(record)
        try:
            super().emit(record)
        except OSError:  # opening it is not caught there: the folder is gone, say. Whoever logs must not fail for it
            self.handleError(record)

    def _rotate(self) -> None:
        with open(f"{self.baseFilename}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.getsize(self.baseFilename) < self.limit:
                return  # another process was first
            for number in range(self.keep - 1, 0, -1):
                if os.path.exists(older := f"{self.baseFilename}.{number}"):
                    os.replace(older, f"{self.baseFilename}.{number + 1}")
            os.replace(self.baseFilename, f"{self.baseFilename}.1")
