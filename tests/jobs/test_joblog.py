"""A job's log: what its runs said, bounded, clean, and only for its owner."""

from collections import deque
from uuid import uuid4

import pytest

from jobs import joblog, runner
from jobs.attempt import Attempt
from jobs.models import Job, LogLine, Status

pytestmark = pytest.mark.django_db


def texts(job_id) -> list[str]:
    return [line.text for line in joblog.read(Job.objects.get(pk=job_id))]


@pytest.fixture
def log(submit):
    return joblog.Log(submit().pk, 1)


def test_lines_are_cut_and_counted(log):
    log.say("x" * 1000)
    for number in range(joblog.MOST + 5):
        log.say(str(number))
    log.write()
    lines = LogLine.objects.all()
    assert len(lines[0].text) == joblog.LENGTH
    assert len(lines) == joblog.MOST + 1 and lines[joblog.MOST].text == "… more is not kept"
    assert len(texts(log.job_id)) == joblog.MOST  # one answer; the next begins after it


def test_what_could_forge_a_line_or_tell_a_secret_is_taken_out(log, settings):
    settings.JOBSITE["RUNPOD_API_KEY"] = "canary-of-runpod"
    log.say("one\x1b[31m red\r\ntwo\x00 Authorization: Bearer abcdefghijklmnop")
    log.say("   ")
    log.write()
    assert texts(log.job_id) == ["one [31m red", "two  Authorization: *** ***"]


@pytest.mark.django_db(transaction=True)
def test_a_job_that_is_gone_costs_only_the_lines():
    log = joblog.Log(uuid4(), 1)
    log.say("late")
    log.write()
    assert not log.written and not LogLine.objects.exists()


def test_the_heartbeat_may_take_the_last_line_from_under_the_run(log):
    class Shared(deque):
        def __bool__(self):
            there = len(self) > 0
            self.clear()  # the other thread was quicker
            return there

        def popleft(self):
            line = super().popleft()
            self.clear()
            return line

    log._waiting = Shared()
    log.say("one\ntwo")
    log.write()
    assert len(texts(log.job_id)) <= 1


def test_a_failing_ffmpeg_is_in_it_and_its_paths_are_not(running, tmp_path):
    lease = running(output=False)
    attempt = Attempt(lease, tmp_path / "work")
    (attempt.workdir / "clip.mp4").write_bytes(b"no film")
    with pytest.raises(Exception, match=r"clip\.mp4") as raised:
        attempt.ffmpeg(["-i", str(attempt.workdir / "clip.mp4"), "out.mp4"], seconds=1)
    attempt.close()
    runner._settle(attempt, raised.value)
    lines = texts(lease.job_id)
    assert any("Invalid data found" in line for line in lines) and lines[-1].startswith("ffmpeg_error: ")
    assert not any(str(tmp_path) in line for line in lines)


def test_stages_are_in_it_once_something_was_written(running, tmp_path):
    lease = running(output=False)
    attempt = Attempt(lease, tmp_path)
    attempt.progress(0.1, "cooking")
    attempt.progress(0.2, "cooking")
    attempt.said.write()  # as the heartbeat does
    attempt.progress(0.9, "serving")
    attempt.close()
    runner._settle(attempt, None)
    assert texts(lease.job_id) == ["cooking", "serving"]
    assert Job.objects.get().status == Status.SUCCEEDED


def test_a_short_job_that_goes_well_writes_none(running, tmp_path):
    lease = running(output=False)
    attempt = Attempt(lease, tmp_path)
    attempt.progress(0.1, "cooking")
    attempt.close()
    runner._settle(attempt, None)
    assert not LogLine.objects.exists()


def test_the_api_pages_by_after_and_tells_only_the_owner(log, as_ann, as_bob):
    log.say("one\ntwo")
    log.write()
    page = f"/api/jobs/{log.job_id}/logs/"
    told = as_ann.get(page).json()
    assert [line["text"] for line in told["lines"]] == ["one", "two"]
    assert as_ann.get(f"{page}?after={told['lines'][0]['id']}").json()["lines"][0]["text"] == "two"
    again = as_ann.get(f"{page}?after={told['after']}")
    assert (again.json(), again["Retry-After"]) == ({"lines": [], "after": told["after"]}, "1")
    assert as_ann.get(f"{page}?after=-1").status_code == as_ann.get(f"{page}?before=1").status_code == 400
    assert as_bob.get(page).status_code == 404


def test_the_owners_page_and_the_operators_show_it(log, client, ann, op):
    log.say("<b>clip 2</b> has no sound")
    log.write()
    for person, page in ((ann, f"/my/jobs/{log.job_id}/"), (op, f"/admin/jobs/job/{log.job_id}/change/")):
        client.force_login(person)
        assert "&lt;b&gt;clip 2&lt;/b&gt; has no sound" in client.get(page).content.decode()
