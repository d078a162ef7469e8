"""Which platform, and with which key: from JOBSITE_URL and JOBSITE_KEY, else from what `jobsite login` has kept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple


class Access(NamedTuple):
    """Where to and what with; either may be empty."""

    url: str
    key: str

    def __repr__(self) -> str:
        return f"Access({self.url!r})"


def file() -> Path:
    """Where `jobsite login` keeps them: JOBSITE_CONFIG, else in the user's configuration folder."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(os.environ.get("JOBSITE_CONFIG") or Path(folder) / "jobsite" / "config.json")


def find(url: str | None = None, key: str | None = None) -> Access:
    """What is given, else from the environment, else from the file. A key from the file goes to the address that it was
    kept with, and to no other. ValueError if the file cannot be read as what it is."""
    url, key = url or os.environ.get("JOBSITE_URL"), key or os.environ.get("JOBSITE_KEY")
    if url and key:
        return Access(url, key)
    kept = _kept()
    own = kept.key if not url or url.rstrip("/") == kept.url.rstrip("/") else ""
    return Access(url or kept.url, key or own)


def keep(access: Access) -> Path:
    """Write the file, readable by its owner alone."""
    path = file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        json.dump(access._asdict(), opened)
    new.replace(path)
    return path


def _kept() -> Access:
    try:
        found = json.loads(file().read_text())
        return Access(str(found["url"]), str(found["key"]))
    except FileNotFoundError:
        return Access("", "")
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file()} is not what jobsite login wrote; log in again.") from None
