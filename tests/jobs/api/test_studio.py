"""The Studio's calls, as its document writes them."""

import json
import sqlite3
from contextlib import closing

import pytest
from django.core.management import CommandError, call_command

from jobs import lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.imports import studio_id
from jobs.models import Job
from tests import invariants
from tests.jobs.conftest import PARAMS

pytestmark = pytest.mark.django_db
FORM = "application/x-www-form-urlencoded"  # what `curl -d` says of its body


def submit(client, **params):
    body = json.dumps({"type": "KITCHEN", "params": PARAMS | params})
    return client.generic("POST", "/jobs", body, content_type=FORM)


def test_submit_watch_and_delete(as_ann, ann):
    answer = submit(as_ann)
    assert answer.status_code == 201
    job = answer.json()
    assert (job["status"], job["type"], job["output_urls"], job["error"]) == ("QUEUED", "KITCHEN", [], None)
    assert Job.objects.get().max_attempts == 1
    assert as_ann.get(f"/jobs/{job['job_id']}").json()["status_hint"] is None
    assert [each["job_id"] for each in as_ann.get("/jobs").json()] == [job["job_id"]]
    gone = as_ann.delete(f"/jobs/{job['job_id']}")
    assert gone.json() == {"job_id": job["job_id"], "deleted": True, "artifacts_cleaned": 0}
    assert as_ann.get(f"/jobs/{job['job_id']}").status_code == 404
    invariants.check()


def test_cancel_is_canceled_both_times(as_ann, ann):
    job_id = submit(as_ann).json()["job_id"]
    for _ in range(2):
        answer = as_ann.post(f"/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "CANCELED")
    assert answer.json()["error"] == {"code": "user_canceled", "message": "The job was cancelled."}
    invariants.check()


def test_cancel_of_an_ended_job_leaves_it(as_ann, succeeded):
    job = succeeded()
    answer = as_ann.post(f"/jobs/{job.pk}/cancel").json()
    assert answer["status"] == "SUCCEEDED"
    (link,) = answer["output_urls"]
    assert link.endswith(f"/api/jobs/{job.pk}/outputs/dish.txt/")
    assert as_ann.delete(f"/jobs/{job.pk}").json()["artifacts_cleaned"] == 1


def test_a_failed_job_says_code_and_message(as_ann, running):
    lease = running(max_attempts=1)
    lifecycle.fail(lease, JobError(ErrorCode.config_error, "RunPod is not configured."))
    error = as_ann.get(f"/jobs/{lease.job_id}").json()["error"]
    assert error == {"code": "config_error", "message": "RunPod is not configured."}


def test_bad_submissions_name_the_field(as_ann):
    assert as_ann.generic("POST", "/jobs", '{"type":"NOPE"}', content_type=FORM).json()["errors"][0]["field"] == "type"
    assert submit(as_ann, seconds="x").json()["errors"][0]["field"] == "params.seconds"
    assert as_ann.generic("POST", "/jobs", "{", content_type=FORM).status_code == 400
    assert not Job.objects.exists()


def test_others_see_nothing(as_ann, as_bob):
    job_id = submit(as_ann).json()["job_id"]
    assert as_bob.get("/jobs").json() == []
    for call in (as_bob.get, as_bob.delete):
        assert call(f"/jobs/{job_id}").status_code == 404
    assert as_bob.post(f"/jobs/{job_id}/cancel").status_code == 404


@pytest.mark.parametrize(
    "theirs", ["words", [], None, 5, {"job_id": "bobs", "output_urls": ["https://evil.example/virus.exe"]}]
)
def test_metadata_are_not_taken_for_the_studios_words(as_ann, as_op, theirs):
    body = {"kind": "KITCHEN", "params": PARAMS, "metadata": {"studio": theirs}}
    job_id = as_ann.send("/api/jobs/", body).json()["id"]
    for client in (as_ann, as_op):  # Op sees everybody's
        assert [(job["job_id"], job["output_urls"]) for job in client.get("/jobs").json()] == [(job_id, [])]


@pytest.fixture
def studio(tmp_path):
    """The Studio's database: a finished render, a failed stitch, a running job and one of a kind nobody knows."""
    path = tmp_path / "jobs #1?.db"
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE jobs (job_id TEXT PRIMARY KEY, type TEXT, status TEXT, params TEXT, output_urls TEXT,"
            " created_at TIMESTAMP, updated_at TIMESTAMP, heartbeat_at TIMESTAMP, error_code TEXT, error_message TEXT)"
        )
        rows = [
            ("test-job", "RENDER", "SUCCEEDED", '{"prompt":"x"}', '["file:///tmp/test-job.mp4"]', None, None),
            ("b", "STITCH", "FAILED", "{}", None, "ffmpeg_error", "broken"),
            ("c", "RENDER", "RUNNING", "{}", None, None, None),
            ("d", "DANCE", "SUCCEEDED", "{}", None, None, None),
        ]
        for job_id, kind, status, params, urls, code, message in rows:
            database.execute(
                "INSERT INTO jobs VALUES (?,?,?,?,?,'2025-12-06 10:00:00',datetime('now'),NULL,?,?)",
                (job_id, kind, status, params, urls, code, message),
            )
    return path


def test_a_studio_moves_in_once(studio, ann, as_ann, capsys, tmp_path):
    file = tmp_path / "test-job.mp4"
    file.write_bytes(b"kept")
    call_command("import_jobs", str(studio), "--user", "ann")
    said = capsys.readouterr()
    assert said.out == "imported 2 jobs, 0 were there, 2 not imported\n"
    assert "c was not imported: it is RUNNING" in said.err and "d was not imported: there is no kind DANCE" in said.err
    call_command("import_jobs", str(studio), "--user", "ann")
    assert "imported 0 jobs, 2 were there" in capsys.readouterr().out
    job = as_ann.get("/jobs/test-job").json()
    assert (job["job_id"], job["status"], job["output_urls"]) == (
        "test-job",
        "SUCCEEDED",
        ["file:///tmp/test-job.mp4"],
    )
    assert as_ann.get("/jobs/b").json()["error"] == {"code": "ffmpeg_error", "message": "broken"}
    assert as_ann.get(f"/api/jobs/{studio_id('b')}/").json()["cost"]["charged"] == 0
    assert submit(as_ann).status_code == 201  # what was imported does not count as sent just now
    assert as_ann.delete("/jobs/test-job").json() == {"job_id": "test-job", "deleted": True, "artifacts_cleaned": 0}
    assert file.exists()


def test_a_broken_row_is_told_and_keeps_no_other_from_moving_in(studio, ann, as_ann, capsys):
    broken = {
        "no JSON": ("{", "2025-12-06"),
        "deep": ("[" * 100_000, "2025-12-06"),
        "nan": ('{"seed": NaN}', "2025-12-06"),
        "half a letter": (r'{"prompt": "\ud800"}', "2025-12-06"),
        "before all time": ("{}", "0001-01-01T00:00:00+14:00"),
    }
    with closing(sqlite3.connect(studio)) as database, database:
        for name, (params, at) in broken.items():
            row = (name, "RENDER", "SUCCEEDED", params, None, at, at)
            database.execute("INSERT INTO jobs VALUES (?,?,?,?,?,?,?,NULL,NULL,NULL)", row)
        database.execute("UPDATE jobs SET error_message = CAST(x'ff61' AS TEXT) WHERE job_id = 'b'")
    call_command("import_jobs", str(studio), "--user", "ann")
    said = capsys.readouterr()
    assert said.out == "imported 2 jobs, 0 were there, 7 not imported\n"
    assert all(f"{name} was not imported: " in said.err for name in broken)
    assert {job["job_id"] for job in as_ann.get("/jobs").json()} == {"test-job", "b"}
    assert as_ann.get("/jobs/b").json()["error"]["message"] == "\N{REPLACEMENT CHARACTER}a"


def test_what_is_no_studio_is_refused_in_a_sentence(ann, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("nothing like it " * 100)
    for path in (file, tmp_path / "missing.db"):
        with pytest.raises(CommandError, match="cannot be read as a Studio's database"):
            call_command("import_jobs", str(path), "--user", "ann")
    with pytest.raises(CommandError, match="There is no user zoe"):
        call_command("import_jobs", str(file), "--user", "zoe")
