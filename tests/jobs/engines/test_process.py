"""Children: limits, walls, floods, and that none of them is ever left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import procfs
from jobs.engines import own_user, process
from jobs.errors import ErrorCode, JobError
from tests.waiting import until

LIMITS = process.Limits(seconds=60)
ROOT = Path(process.__file__).parents[2]


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-c", code]


def lives(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    return procfs.started(pid) is not None


def test_a_child_has_its_folder_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("CANARY", "secret")
    code = "import os, sys; print(os.getcwd()); print('CANARY' in os.environ); print(repr(sys.stdin.read()))"
    lines = []
    assert process.run(python(code), cwd=tmp_path, limits=LIMITS, on_line=lines.append).returncode == 0
    assert lines[0] in (str(tmp_path), own_user.ROOM)
    assert lines[1:] == ["False", "''"]


def test_a_child_reaches_no_network_and_gains_no_rights(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        assert subprocess.run(python(code)).returncode == 0, "the probe works without the wall"
        assert process.run(python(code), cwd=tmp_path, limits=LIMITS).returncode == 1
    lines = []
    process.run(["grep", "NoNewPrivs", "/proc/self/status"], cwd=tmp_path, limits=LIMITS, on_line=lines.append)
    assert lines == ["NoNewPrivs:\t1"]


@pytest.mark.parametrize(
    ("code", "limits", "ends"),
    [
        ("b = bytearray(400 * 1024**2)", process.Limits(memory_bytes=200 * 1024**2), 1),
        (
            "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL); open('f', 'wb').write(bytes(10**6))",
            process.Limits(file_bytes=1000),
            -signal.SIGXFSZ,
        ),
        ("open_ = [open('/dev/null') for _ in range(300)]", LIMITS, 1),
        ("import resource; raise SystemExit(resource.getrlimit(resource.RLIMIT_CORE) == (0, 0))", LIMITS, 1),
    ],
)
def test_limits_hold(tmp_path, code, limits, ends):
    assert process.run(python(code), cwd=tmp_path, limits=limits).returncode == ends


def test_a_flood_on_either_pipe_blocks_nothing_and_is_cut(tmp_path):
    code = (
        "import sys\n"
        "for n in range(20000):\n"
        "    sys.stderr.write(f'{n} ' + 'e' * 500 + chr(10)); sys.stdout.write('o' * 500 + chr(10))\n"
        "sys.stderr.write('x' * 5_000_000)"
    )
    lengths = []
    ended = process.run(python(code), cwd=tmp_path, limits=LIMITS, on_line=lambda line: lengths.append(len(line)))
    assert (len(lengths), set(lengths)) == (20000, {500})
    assert len(ended.tail) == process.TAIL_LINES
    assert max(map(len, ended.tail)) == process.LINE_CHARACTERS
    assert ended.tail[-2].startswith("19999 ")


def test_stop_kills_at_once_what_ignores_term_and_its_children(tmp_path):
    code = (
        "import signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen(['sleep', '100']).pid, flush=True); time.sleep(100)"
    )
    pids = []

    with pytest.raises(process.Stopped):
        process.run(
            python(code),
            cwd=tmp_path,
            limits=LIMITS,
            on_start=pids.append,
            on_line=lambda line: pids.append(int(line)),
            stop=lambda: len(pids) == 2,
        )
    until(lambda: not any(map(lives, pids)))


class Cancelled(BaseException):
    pass


def test_whatever_passes_through_leaves_no_child(tmp_path):
    pids = []

    def interrupt(*_):
        raise Cancelled

    def soon(pid: int) -> None:
        pids.append(pid)
        signal.setitimer(signal.ITIMER_REAL, 0.3)

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(Cancelled):
            process.run(["sleep", "100"], cwd=tmp_path, limits=LIMITS, on_start=soon)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)

    def broken(line: str) -> None:
        raise KeyError(line)

    with pytest.raises(KeyError):
        process.run(["yes"], cwd=tmp_path, limits=LIMITS, on_start=pids.append, on_line=broken)
    assert len(pids) == 2
    assert not any(map(lives, pids))


@pytest.mark.parametrize("limits", [process.Limits(seconds=0.3), process.Limits(seconds=20, cpu_seconds=1)])
def test_too_long_is_a_timeout(tmp_path, limits):
    with pytest.raises(JobError) as raised:
        process.run(python("while True: pass"), cwd=tmp_path, limits=limits)
    assert raised.value.code is ErrorCode.timeout


def test_what_an_ended_child_left_behind_is_killed(tmp_path):
    lines = []
    process.run(["sh", "-c", "sleep 100 & echo $!"], cwd=tmp_path, limits=LIMITS, on_line=lines.append)
    until(lambda: not lives(int(lines[0])))


def test_the_pid_is_the_program_itself_and_it_dies_with_its_starter(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; from jobs.engines import process\n"
        f"process.run(['sleep', '100'], cwd=Path({str(tmp_path)!r}), limits=process.Limits(),"
        " on_start=lambda pid: print(pid, flush=True))"
    )
    starter = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True)
    with starter:
        child = int(starter.stdout.readline())
        until(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n", seconds=20)
        assert os.readlink(f"/proc/{child}/cwd") == str(tmp_path), "the demo and the tests of faults know it by that"
        changed = Path(f"/proc/{child}").stat().st_uid != os.getuid()
        assert changed is bool(process.walls().own_user), "a change of user must not disarm the death signal (trap 2)"
        os.kill(starter.pid, signal.SIGKILL)
        until(lambda: not lives(child))


def test_missing_tools_are_named_and_the_rest_still_works(tmp_path, monkeypatch):
    which = process.shutil.which
    monkeypatch.setattr(process.shutil, "which", lambda name: None if name == "unshare" else which(name))
    process.walls.cache_clear()
    try:
        assert process.walls().missing == ["unshare"]
        assert process.run(["true"], cwd=tmp_path, limits=LIMITS).returncode == 0
    finally:
        process.walls.cache_clear()


def test_no_such_program(tmp_path):
    with pytest.raises(JobError) as raised:
        process.run(["/nowhere/ffmpeg"], cwd=tmp_path, limits=LIMITS)
    assert raised.value.code is ErrorCode.config_error
    assert "/nowhere" not in raised.value.message
