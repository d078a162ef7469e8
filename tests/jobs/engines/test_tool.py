"""Python work in a child: its answer, its progress, each way to fail, and walls around it."""

import sys
import textwrap

import pytest

from jobs.engines import process, tool
from jobs.errors import ErrorCode, JobError

LIMITS = process.Limits(seconds=20, memory_bytes=512 * 1024**2, file_bytes=1024**2)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(source of `work`, task) → the answer of a module that is made of it."""
    monkeypatch.setattr(tool, "ROOT", f"{tool.ROOT}:{tmp_path}")

    def make(body, task=None, **options):
        source = "from jobs.engines import tool\ndef work(task, progress):\n" + textwrap.indent(body, "    ")
        (tmp_path / "made.py").write_text(source + "\nif __name__ == '__main__':\n    tool.main(work)\n")
        return tool.run("made", task or {}, cwd=tmp_path, limits=LIMITS, **options)

    return make


def test_answers_and_tells_progress(run):
    told = []
    answer = run("progress(0.25); progress(7)\nreturn {'twice': 2 * task['n']}", {"n": 21}, on_progress=told.append)
    assert answer == {"twice": 42}
    assert told == [0.25, 1.0]


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (
            "from jobs.errors import ErrorCode, JobError\nraise JobError(ErrorCode.bad_input, 'No good.')",
            ErrorCode.bad_input,
            "No good",
        ),
        ("hoard = [bytes(1 << 27) for _ in range(100)]", ErrorCode.out_of_memory, "memory"),
        ("raise ValueError('a\\x1b[1mb')", ErrorCode.processing_error, r"ValueError: a\[1mb"),
        ("import os; os._exit(3)", ErrorCode.processing_error, "ended with 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", ErrorCode.processing_error, "ended with -11"),
        ("import os; print('{\"result\": {}}', flush=True); os._exit(1)", ErrorCode.processing_error, "ended with 1"),
        ("open('big', 'wb').write(bytes(1 << 22))", ErrorCode.processing_error, "failed"),
    ],
)
def test_every_failure_is_a_job_error(run, body, code, words):
    with pytest.raises(JobError, match=words) as raised:
        run(body)
    assert raised.value.code is code
    assert len(raised.value.message) < 300


def test_a_package_that_is_not_installed_is_the_operators_to_mend(run):
    with pytest.raises(JobError) as failed:
        run("import a_package.that_is_not_here")
    assert failed.value.code is ErrorCode.config_error
    assert failed.value.message == "This host lacks a_package: pip install -r requirements-kinds.txt brings it."


def test_nothing_of_the_parent_reaches_the_child(run, monkeypatch):
    monkeypatch.setenv("OPENROUTER_API_KEY", "canary")
    found = run(
        "import os, sys; return {'env': dict(os.environ), 'modules': [m for m in sys.modules if 'django' in m]}"
    )
    assert "canary" not in str(found)
    assert found["modules"] == []


@pytest.mark.skipif("unshare" in process.walls().missing, reason="this host has no network namespaces")
def test_the_child_has_no_network(run):
    with pytest.raises(JobError, match="unreachable"):
        run("import socket; socket.create_connection(('127.0.0.1', 9), 5)")


def test_it_is_this_python(run):
    assert run("import sys; return {'python': sys.executable}") == {"python": sys.executable}
