"""Outputs shown in the page: pictures, films and sound by their address, texts as text."""

import contextlib
import json
import logging
from dataclasses import dataclass

from django.core.files.storage import default_storage

from jobs.models import Artifact

log = logging.getLogger(__name__)

TEXT_BYTES = 64 * 1024  # of one text; the rest is in the download
TEXTS_MOST = 5
SHOWN = {
    "image": ("image/png", "image/jpeg", "image/webp", "image/gif"),
    "video": ("video/mp4", "video/webm"),
    "audio": ("audio/mpeg", "audio/wav", "audio/ogg", "audio/flac", "audio/mp4", "audio/aac"),
    "text": ("text/plain", "text/csv", "application/json"),
}


@dataclass(frozen=True)
class Shown:
    """An output and how the page shows it: `how` is a key of SHOWN or empty. `text` is to be escaped like any other."""

    file: Artifact
    how: str
    text: str = ""
    cut: bool = False  # there is more of the text


def shown(files: list[Artifact]) -> list[Shown]:
    """All of them, the first TEXTS_MOST texts read. A file that is not there is only named."""
    found, texts = [], 0
    for file in files:
        how = next((how for how, types in SHOWN.items() if file.content_type in types), "")
        if file.damage:
            how = "gone"
        text, cut = "", False
        if how == "text":
            texts += 1
            read = _read(file) if texts <= TEXTS_MOST else None
            text, cut = read or ("", False)
            how = "text" if read else ""
        found.append(Shown(file, how, text, cut))
    return found


def _read(file: Artifact) -> tuple[str, bool] | None:
    """The beginning of a text, and whether there is more; None if the storage does not give it."""
    try:
        with default_storage.open(file.key, "rb") as stored:
            begin = stored.read(TEXT_BYTES + 1)
    except OSError as error:
        log.warning("Output %s of job %s cannot be shown: %s", file.name, file.job_id, error)
        return None
    text, cut = begin[:TEXT_BYTES].decode("utf-8", "replace"), len(begin) > TEXT_BYTES
    if file.content_type == "application/json" and not cut:
        with contextlib.suppress(ValueError, RecursionError):  # then it is shown as it is
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
            text = text.encode("utf-8", "replace").decode()  # JSON may hold half of a surrogate pair, no page can
    return text, cut
