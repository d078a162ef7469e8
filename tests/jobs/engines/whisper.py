"""A stand-in for the library faster-whisper, with the part of its API that `jobs.engines.speech` uses."""

import textwrap
from pathlib import Path

from jobs.engines import tool

STAND_IN = textwrap.dedent("""
    import os
    from types import SimpleNamespace


    class WhisperModel:
        def __init__(self, model, *, device, compute_type, local_files_only):
            assert local_files_only
            self.name = os.path.basename(model)

        def transcribe(self, audio, *, vad_filter):
            assert os.path.isfile(audio)

            def segments():
                yield SimpleNamespace(start=0.0, end=1.0, text=" Buy one,")
                yield SimpleNamespace(start=1.0, end=2.0, text=f" get {self.name} \\u201cfree\\u201d.")

            return segments(), SimpleNamespace(language="en", language_probability=0.98, duration=2.0)
""")


def plant(monkeypatch, folder: Path, source: str = STAND_IN) -> None:
    """Let this process find, and its children import, `source` as the library."""
    folder.mkdir()
    (folder / "faster_whisper.py").write_text(source)
    (folder / "jobs").symlink_to(tool.ROOT / "jobs")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(tool, "ROOT", folder)
