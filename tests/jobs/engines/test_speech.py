"""What is said: the child around faster-whisper, with a stand-in for the library, not the real one."""

import textwrap

import pytest

from jobs.engines import process, speech, tool
from jobs.errors import ErrorCode, JobError
from tests.jobs.engines.whisper import plant


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in speech.MODEL_FILES:
        (folder / name).write_text("{}")
    return folder


def heard(folder, model):
    (folder / "speech.wav").write_bytes(b"RIFF")
    told = []
    task = speech.task(model, "speech.wav", "transcript.json")
    limits = process.Limits(seconds=30, memory_bytes=speech.MEMORY_BYTES)
    tool.run(speech.MODULE, task, cwd=folder, limits=limits, on_progress=told.append)
    return speech.read(folder / "transcript.json"), told


def test_writes_down_what_the_model_hears(tmp_path, monkeypatch, model):
    plant(monkeypatch, tmp_path / "planted")
    speech.check(model)
    said, told = heard(tmp_path, model)
    assert said == {
        "language": "en",
        "language_probability": 0.98,
        "segments": [
            {"start": 0.0, "end": 1.0, "text": "Buy one,"},
            {"start": 1.0, "end": 2.0, "text": f"get {model.name} “free”."},
        ],
    }
    assert told == [0.5, 1.0]


def test_a_folder_without_a_model_is_the_operators_fault(tmp_path, monkeypatch, model):
    plant(monkeypatch, tmp_path / "planted")
    (model / "model.bin").unlink()
    for folder in (model, tmp_path / "none"):
        with pytest.raises(JobError, match=r"lacks model\.bin") as raised:
            speech.check(folder)
        assert (raised.value.code, str(tmp_path) in str(raised.value)) == (ErrorCode.config_error, False)


def test_so_is_a_missing_library(monkeypatch, model):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(JobError, match="not installed") as raised:
        speech.check(model)
    assert raised.value.code is ErrorCode.config_error


def test_a_model_that_breaks_ends_the_work_with_its_words(tmp_path, monkeypatch, model):
    broken = textwrap.dedent("""
        class WhisperModel:
            def __init__(self, *args, **options):
                raise RuntimeError("Unsupported model binary version")
    """)
    plant(monkeypatch, tmp_path / "planted", broken)
    with pytest.raises(JobError, match="Unsupported model binary version") as raised:
        heard(tmp_path, model)
    assert raised.value.code is ErrorCode.processing_error
