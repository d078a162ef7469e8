"""What the documents show is run: the client's README as it stands, and every curl line, against a live server."""

import io
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from jobsite_client.__main__ import main

from jobs import lifecycle
from jobs.engines import outbound
from jobs.models import Job
from tests import media_files
from tests.client import work

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "client" / "README.md",
]  # docs/moving: tests/systems


def curls() -> list[tuple[str, str]]:
    """(page, command) of every curl line, with the lines that it goes on in."""
    found = []
    for page in PAGES:
        for command in re.findall(r"^ *(curl (?:.*\\\n)*.*)$", page.read_text(), re.MULTILINE):
            found.append((page.name, command))
    return found


@pytest.fixture
def here(monkeypatch, tmp_path, network, key):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBSITE_URL", network.url)
    monkeypatch.setenv("JOBSITE_KEY", key)


def test_the_clients_readme_runs(here, tmp_path, capsys):
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "client" / "README.md").read_text(), re.DOTALL)
    assert len(snippets) == 3
    for snippet in snippets:
        with work.hand(lambda: work.finish(work.claimed("gpu"), tmp_path, video_mp4=b"film")):
            exec(compile(snippet, "client/README.md", "exec"), {})
    assert (tmp_path / "lighthouse.mp4").read_bytes() == b"film"
    told = capsys.readouterr().out
    assert "SUCCEEDED" in told
    assert "4 bytes" in told


def test_the_clients_commands_work(here, tmp_path, monkeypatch, capsys, network, key):
    page = (ROOT / "client" / "README.md").read_text()
    lines = re.findall(r"^    jobsite (.*?)(?:  +#.*)?$", page, re.MULTILINE)
    assert len(lines) >= 6
    monkeypatch.setenv("JOBSITE_CONFIG", str(tmp_path / "config.json"))
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(media_files.clip())
    for line in lines:
        monkeypatch.setattr("sys.stdin", io.StringIO(key))  # what `login` asks for
        words = shlex.split(line.replace("https://jobs.example.com", network.url))
        words = [str(Job.objects.earliest("pk").pk) if word == "JOB" else word for word in words]
        waits, queue = words[0] == "run" and "--no-wait" not in words, "cpu" if "stitch" in words else "gpu"
        with work.hand(lambda: waits and work.finish(work.claimed(queue), tmp_path, film_mp4=b"film")):  # noqa: B023
            assert main(words) == 0, line
    assert (tmp_path / "lighthouse.mp4").read_bytes() == (tmp_path / "film.mp4").read_bytes() == b"film"
    shown = capsys.readouterr().out
    assert [json.loads(one)["metadata"] for one in shown.splitlines() if one.startswith("{")] == [{"order": "A 17"}]


def test_every_curl_line_is_answered(here, ann, dish, server, key, tmp_path, settings):
    settings.JOBSITE = {**settings.JOBSITE, "WEBHOOK_NETWORKS": outbound.LOOPBACK}
    job, _ = lifecycle.submit(ann.pk, "KITCHEN", dish)
    work.finish(work.claimed(), tmp_path, dish_txt=b"soup")
    environment = {**os.environ, "SITE_URL": server, "KEY": key, "ID": str(job.pk)}
    lines = curls()
    assert len(lines) >= 3
    for page, command in lines:
        said = _said(command, environment, tmp_path)
        assert re.fullmatch("2..", said), (page, command, said)


def _said(command: str, environment: dict[str, str], folder: Path) -> str:
    """The status that the command is answered with, and its answer unless that is well. What it waits for is done."""
    waits = "Prefer: wait" in command
    with work.hand(lambda: waits and work.finish(work.claimed("gpu"), folder, video_mp4=b"film")):
        shell = ["bash", "-c", f"{command} --max-time 20 -sS -o answer -w '%{{http_code}}'"]
        done = subprocess.run(shell, env=environment, cwd=folder, capture_output=True, text=True, timeout=30)
    return (
        done.stdout if done.stdout.startswith("2") else f"{done.stdout} {done.stderr} {(folder / 'answer').read_text()}"
    )
