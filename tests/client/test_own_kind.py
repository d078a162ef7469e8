"""docs/own-kind.md: its one file, loaded as the page says, has all the faces that the page says."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from jobsite_client.__main__ import main

from jobs import kinds, runner, slots
from jobs.heartbeat import heart
from jobs.kinds.base import REGISTRY
from jobs.models import Job
from tests import invariants, media_files
from tests.clients import ApiClient, codes, content

pytestmark = pytest.mark.once

PAGE = Path(__file__).parents[2] / "docs" / "own-kind.md"


@pytest.fixture
def loop(transactional_db, monkeypatch, tmp_path, settings) -> Iterator[str]:
    """The page's file in a folder of its own, named by JOBSITE_KINDS, and a worker's heart. Gives its source."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "loops.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    settings.JOBSITE = {**settings.JOBSITE, "KINDS": ["loops"]}
    kinds.load()
    heart.slot = slots.register(["cpu"])
    heart.start(["cpu"], nudged=False)
    yield source
    heart.stop()
    del REGISTRY["LOOP"], sys.modules["loops"]


def test_one_file_is_an_api_a_form_a_price_docs_admin_and_a_command(
    loop, ann, op, network, key, monkeypatch, tmp_path, capsys
):
    assert len(loop.splitlines()) <= 32
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBSITE_URL", network.url)
    monkeypatch.setenv("JOBSITE_KEY", key)
    Path("holiday.mp4").write_bytes(media_files.clip())
    assert main(["submit", "loop", "-p", "clip=@holiday.mp4", "-p", "seconds=5"]) == 0
    assert runner.drain("cpu", seconds=0) == 1
    job = Job.objects.get()
    assert (job.kind, job.status, job.price) == ("LOOP", "SUCCEEDED", 2), job.error_message
    assert main(["download", str(job.pk)]) == 0
    assert Path("loop.gif").read_bytes().startswith(b"GIF89a")

    api = ApiClient(ann)
    told = api.get(f"/api/jobs/{job.pk}/").json()
    assert content(api.get(told["outputs"][0]["url"])) == Path("loop.gif").read_bytes()
    wrong = {"kind": "LOOP", "params": {"clip": job.params["clip"], "width": 9, "colour": "red"}}
    assert codes(api.send("/api/jobs/estimate/", wrong)).keys() == {"params.width", "params.colour"}
    right = {"kind": "LOOP", "params": {"clip": job.params["clip"]}}
    assert api.send("/api/jobs/estimate/", right).json()["cost"] == {"estimate": 1}
    schema = api.get("/api/schema/").content.decode()
    assert "LOOP" in schema and "`seconds`: default `3`; at least 1; at most 10" in schema

    browser = Client()
    browser.force_login(ann)
    form = browser.get("/my/jobs/new/LOOP/").content.decode()
    assert all(f'name="{name}"' in form for name in ("clip", "seconds", "width")) and "Pixels. 64 to 640." in form
    assert "a GIF that plays for ever" in browser.get("/my/jobs/new/").content.decode()
    assert "loop.gif" in browser.get(f"/my/jobs/{job.pk}/").content.decode()
    browser.force_login(op)
    listed = browser.get(reverse("admin:jobs_job_changelist"), {"kind": "LOOP"}).content.decode()
    assert str(job.pk) in listed and '<option value="LOOP" selected' in listed
    assert "LOOP" in browser.get(reverse("admin:jobs_policy_add")).content.decode()
    invariants.check()
