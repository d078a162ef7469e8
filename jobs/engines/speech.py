"""What is said in a sound: faster-whisper on the CPU, in a child behind the walls (it does the whole work there).

The model is a folder in CTranslate2's form that the operator names (SPEECH_MODEL); nothing is ever downloaded. Run as
`python -m jobs.engines.speech` it is the child; see `jobs.engines.tool`.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

from jobs.engines import tool
from jobs.errors import ErrorCode, JobError

MODEL_FILES = ("model.bin", "config.json", "tokenizer.json")  # without the last, faster-whisper asks the network
MEMORY_BYTES = 8 * 1024**3  # address space: the largest model takes about 3 GiB, and six hours of sound 1.4
ANSWER_BYTES = 32 * 1024**2  # six hours of talk are less than one
MODULE = "jobs.engines.speech"


def check(model: Path) -> None:
    """JobError(config_error), for the operator, unless this folder holds a model and the library is there."""
    missing = [name for name in MODEL_FILES if not (model / name).is_file()]
    if missing:
        raise JobError(ErrorCode.config_error, f"The folder that SPEECH_MODEL names lacks {', '.join(missing)}.")
    if importlib.util.find_spec("faster_whisper") is None:
        raise JobError(ErrorCode.config_error, "SPEECH_MODEL is set, but faster-whisper is not installed.")


def task(model: Path, audio: str, into: str) -> dict[str, Any]:
    """What `run.tool(MODULE, …)` is to do: hear the WAV `audio`, write what was said to `into`."""
    return {"model": str(model.absolute()), "audio": audio, "into": into}


def read(path: Path) -> dict[str, Any]:
    """`language`, `language_probability` (0.0 to 1.0) and `segments` of `start`, `end` (seconds), `text`."""
    if path.stat().st_size > ANSWER_BYTES:
        raise JobError(ErrorCode.processing_error, "The transcript is too long.")
    return json.loads(path.read_text(encoding="utf-8"))


# --- the child -----------------------------------------------------------------------------------------------------


def hear(wanted: dict[str, Any], progress: tool.Progress) -> dict[str, Any]:
    """Do a `task`. Silence is left out before the model hears it: else it makes words up."""
    from faster_whisper import WhisperModel

    model = WhisperModel(wanted["model"], device="cpu", compute_type="int8", local_files_only=True)
    heard, about = model.transcribe(wanted["audio"], vad_filter=True)
    segments = []
    for segment in heard:  # made one by one, while it is asked for them
        segments.append({"start": round(segment.start, 2), "end": round(segment.end, 2), "text": segment.text.strip()})
        progress(segment.end / max(about.duration, 0.001))
    said = {
        "language": about.language,
        "language_probability": round(about.language_probability, 3),
        "segments": segments,
    }
    Path(wanted["into"]).write_text(json.dumps(said), encoding="utf-8")
    return {"segments": len(segments)}


if __name__ == "__main__":
    tool.main(hear)
