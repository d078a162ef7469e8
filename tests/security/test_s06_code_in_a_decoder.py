"""S06: FFmpeg is taken over by a file. A planted "ffmpeg" tries in a real run of a job what such code would try: behind
the walls it gets nothing; the same program with the walls off gets all of it, which proves the probe."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from jobs import health, lifecycle, procfs, runner
from jobs.engines import own_user, process
from jobs.heartbeat import heart
from jobs.models import Job
from tests.waiting import until

FORKS = 40  # of the bomb, which is allowed 24

HOSTILE = """#!/bin/sh
stolen=
try() { name=$1; shift; if "$@" >/dev/null 2>&1; then stolen="$stolen $name"; fi; }
try database cat {home}/planted.sqlite3
try secret cat {home}/secret_key
try storage cat {stored}
try neighbour cat {neighbour}
try neighbours ls {work_root}
try environ cat /proc/$PPID/environ
try memory dd if=/proc/$PPID/mem bs=1 count=0
try signal kill -0 $PPID
try call bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'
try home touch {home}/{mark}
try tmp touch /tmp/{mark}
[ "$(id -u)" != 0 ] || stolen="$stolen root"
( setsid sh -c 'sleep {outlives} & sleep {outlives} & touch hidden' & )
until [ -e hidden ]; do sleep 0.01; done
try forks sh -c 'n=0; while [ $n -lt {forks} ]; do sleep 30 & n=$((n + 1)); done'
echo "stolen:$stolen" >&2
exit 1
"""
ALL = "database secret storage neighbour neighbours environ memory signal call home tmp root forks"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def planted(monkeypatch):
    """planted() → what the hostile program got (its words), and whether something of it outlived the job."""
    monkeypatch.setattr(heart, "_end_if_deaf", lambda idle_since: None)
    monkeypatch.setattr(own_user, "PROCESSES", 24)
    mark, outlives = f"jobsite-s06-{secrets.token_hex(4)}", f"{1000 + secrets.randbelow(10**6)}.5"
    neighbour = settings.WORK_ROOT / "another" / "input-1"
    neighbour.parent.mkdir(parents=True, mode=0o700)
    assert (settings.HOME / "secret_key").exists()  # the real one
    for path in (settings.HOME / "planted.sqlite3", neighbour):
        path.write_text("canary")
    stored = default_storage.path(default_storage.save("uploads/s06", ContentFile(b"canary")))
    bin_ = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folder is closed to others, and so would the program be
    bin_.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        facts = {
            "home": settings.HOME,
            "stored": stored,
            "neighbour": neighbour,
            "work_root": settings.WORK_ROOT,
            "port": listener.getsockname()[1],
            "mark": mark,
            "outlives": outlives,
            "forks": FORKS,
        }
        program, script = bin_ / "ffmpeg", HOSTILE
        for name, value in facts.items():
            script = script.replace(f"{{{name}}}", str(value))
        program.write_text(script)
        program.chmod(0o755)
        monkeypatch.setattr(settings, "JOBSITE", settings.JOBSITE | {"FFMPEG": str(program)})

        def run(ann) -> tuple[str, bool]:
            params = {"prompt": "x", "seconds": 1.0, "fps": 8, "width": 64, "height": 64, "seed": 0}
            job, _ = lifecycle.submit(ann.pk, "RENDER", params)
            runner.run(lifecycle.claim("gpu"))
            left = running(outlives)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            message = Job.objects.get(pk=job.pk).error_message
            return message.partition("stolen:")[2].strip() if "stolen:" in message else message, bool(left)

        yield run
    heart.stop()
    for path in (Path("/tmp", mark), settings.HOME / mark, program):
        path.unlink(missing_ok=True)
    bin_.rmdir()


def running(word: str) -> list[int]:
    """The processes with that word in their command line."""
    found = []
    for pid in procfs.pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except procfs.GONE:
            continue
        if word.encode() in words:
            found.append(pid)
    return found


def test_it_gets_nothing_and_nothing_of_it_stays(ann, planted, monkeypatch):
    if process.walls().own_user != "own" or "room" not in process.walls().tools:
        told = health.walls().detail  # no skip: then the operator has to know
        assert "own user" in told or "mount namespace" in told
        return
    assert planted(ann) == ("", False)
    with monkeypatch.context() as without:
        without.setattr(process, "walls", process.Walls)
        assert planted(ann) == (ALL, True)


def test_python_children_are_walled_in_too_or_the_operator_is_told(tmp_path):
    """The readers of pictures, tables and speech are Python: where others may not read it, it stays our user."""
    seen = []
    code = "import os; print(os.getuid())"
    process.run([sys.executable, "-c", code], cwd=tmp_path, limits=process.Limits(), on_line=seen.append)
    if process.walls().own_user == "own" and not own_user.kept_from(sys.executable):
        assert seen == [str(own_user.of_this_thread())]
    else:
        assert seen == [str(os.getuid())]
        assert "own user" in health.walls().detail


def test_it_is_in_none_of_the_platforms_groups(tmp_path):
    """A root that somebody logged in as has its groups' files open to it."""
    if process.walls().own_user != "own":
        assert "own user" in health.walls().detail
        return
    seen, before = [], os.getgroups()
    os.setgroups([4242])
    try:
        process.run(["id", "-G"], cwd=tmp_path, limits=process.Limits(), on_line=seen.append)
    finally:
        os.setgroups(before)
    assert seen == [str(own_user.of_this_thread())]


def test_what_a_killed_process_left_is_found_by_its_user():
    if process.walls().own_user != "own":
        assert "own user" in health.walls().detail
        return
    starter = subprocess.Popen(["true"])
    starter.wait()
    uid = own_user.BASE + starter.pid  # of a thread that is gone
    stray = subprocess.Popen(["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "sleep", "100"])
    until(lambda: Path(f"/proc/{stray.pid}/comm").read_text() == "sleep\n", seconds=20)
    runner.sweep_work_folders()
    assert stray.wait(20) == -signal.SIGKILL


def test_the_log_and_health_name_what_is_missing(monkeypatch, as_op, client):
    monkeypatch.setattr(process, "walls", lambda: process.Walls({}, ["unshare"]))
    assert health.walls() == health.Check("walls", True, "missing: unshare; own user") or os.geteuid() != 0
    told = {check["code"]: check for check in as_op.get("/health").json()["checks"]}["walls"]
    assert told["ok"] is True
    assert told["detail"].startswith("missing: unshare; own user")
