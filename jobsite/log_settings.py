"""Where log lines go and how they look: `settings.LOGGING`."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured

from jobsite.environment import HOME, env, made

LOG_DIR = HOME / "log"
LEVEL = env.str("LOG_LEVEL", "INFO").upper()
FORMAT = env.str("LOG_FORMAT", "auto").lower()
if LEVEL not in ("DEBUG", "INFO", "WARNING", "ERROR"):
    raise ImproperlyConfigured("LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR.")
if FORMAT not in ("auto", "json", "line"):
    raise ImproperlyConfigured("LOG_FORMAT must be auto, json or line.")


def log_lines(process: str, *, production: bool) -> dict[str, Any]:
    """Django's LOGGING: to the terminal, and to `<process>.log` where `process` is not empty. Makes the folder."""
    made(LOG_DIR)
    of_file = "json" if FORMAT == "json" or (FORMAT == "auto" and production) else "line"
    of_terminal = "terminal" if of_file == "line" else "json"
    handlers: dict[str, Any] = {"terminal": {"class": "logging.StreamHandler", "formatter": of_terminal}}
    if process:
        file = LOG_DIR / f"{process}.log"
        handlers["file"] = {"class": "jobsite.logs.RotatingHandler", "formatter": of_file, "filename": file}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"()": "jobsite.logs.LineFormatter"},
            "terminal": {"()": "jobsite.logs.terminal_formatter"},
            "json": {"()": "jobsite.logs.json_formatter"},
        },
        "filters": {"without_probes": {"()": "jobsite.logs.WithoutProbes"}},
        "handlers": handlers,
        "root": {"handlers": list(handlers), "level": LEVEL},
        "loggers": {
            "django.server": {"level": "WARNING"},
            "django.request": {"filters": ["without_probes"]},
            "celery.worker.strategy": {"level": "WARNING"},  # one line a nudge is noise; jobs logs its transitions
            "celery.app.trace": {"level": "WARNING"},
            "celery.beat": {"level": "WARNING"},
            "uvicorn": {"handlers": [], "propagate": True},  # its own handlers would print every line a second time
            "uvicorn.access": {"handlers": [], "propagate": True, "level": "WARNING"},
            "httpx": {"level": "WARNING"},
            **{name: {"level": "WARNING"} for name in ("botocore", "boto3", "s3transfer", "urllib3")},  # signatures
        },
    }
