"""`manage.py demo` for real: true to its end, and what goes wrong is one sentence. Nothing is left running."""

import io
import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import av
import pytest
from django.conf import settings
from django.core.management.base import OutputWrapper

from jobs import keys, procfs
from jobsite import demo, demo_platform
from jobsite.demo_screen import Screen
from tests import media_files
from tests.waiting import until

pytestmark = pytest.mark.once


class Demo:
    """Demos that keep their films under `home`. The environment names a database and a port that it must not touch."""

    def __init__(self, home: Path):
        self.home = home
        self.env = {**os.environ, "JOBSITE_HOME": str(home), "DATABASE_URL": f"sqlite:///{home}/not-this-one.sqlite3"}

    def start(self, *clips: object) -> subprocess.Popen:
        command = [sys.executable, "manage.py", "demo", *map(str, clips)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=settings.BASE_DIR, env=self.env, **pipes)

    def run(self, *clips: object) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)"""
        process = self.start(*clips)
        said, complained = process.communicate(timeout=280)
        return process.returncode, said, complained

    def pids(self) -> list[int]:
        """Living processes of any platform that a demo started here."""
        found = []
        for pid in procfs.pids():
            try:
                environ = Path(f"/proc/{pid}/environ").read_text(errors="replace")
                working = os.readlink(f"/proc/{pid}/cwd"), environ
            except OSError:
                continue
            if any(f"{self.home}/demo/platform-" in text for text in working):
                found.append(pid)
        return found

    def kept(self) -> list[str]:
        return sorted(entry.name for entry in (self.home / "demo").iterdir())


@pytest.fixture
def shown(tmp_path):
    made = Demo(tmp_path / "home")
    yield made
    for pid in made.pids():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_shows_what_it_promises_and_leaves_only_the_film(shown):
    code, said, complained = shown.run()
    assert (code, complained) == (0, ""), said
    for sentence in (
        "its FFmpeg is alive: pid ",
        "CANCELED; no process ",
        "(user_canceled)",
        "FAILED ffmpeg_error: clips.1 ",
        "(ffmpeg_error)",
        "All of it was true.",
    ):
        assert sentence in said
    assert said.count("  CHARGE ") == len(demo.PROMPTS) + 1
    assert shown.kept() == ["film.mp4"]
    assert shown.pids() == []
    assert not (shown.home / "not-this-one.sqlite3").exists()
    with av.open(str(shown.home / "demo" / "film.mp4")) as film:
        seconds = sum(1 for _ in film.decode(video=0)) / film.streams.video[0].average_rate
    assert seconds == pytest.approx(len(demo.PROMPTS) * demo.SECONDS, abs=0.1)


def test_clips_of_the_users_own_become_the_film(platform, user, tmp_path):
    """CLIPS="a.mp4 b c.mov": the same steps, on a platform that runs already."""
    clips = [tmp_path / "a.mp4", tmp_path / "b c.mov"]
    clips[0].write_bytes(media_files.clip(2))
    odd = ("-f", "lavfi", "-i", "testsrc2=s=96x128:r=30:d=1", "-c:v", "mpeg4")
    clips[1].write_bytes(media_files.made(*odd, suffix=".mov"))
    platform.broker()
    platform.worker()
    said = io.StringIO()
    screen = Screen(OutputWrapper(said))
    with closing(demo.Client(platform.web(), keys.issue(user("demo", tokens=50), "demo")[1])) as client:
        film = demo.stitch(client, screen, tmp_path, [], clips)
        demo.show_film(screen, film, pictures=0)
        demo.show_ledger(client, screen)
        clips[1].write_bytes(clips[1].read_bytes()[:9000])
        with pytest.raises(demo_platform.Failed, match=r"b c\.mov"):
            demo.stitch(client, screen, tmp_path, [], clips)
    assert "uploaded b c.mov" in said.getvalue() and "  CHARGE " in said.getvalue()
    assert re.search(r"^ +3\.0\d s, .* 30 pictures; video h264 64x36", said.getvalue(), re.MULTILINE)


@pytest.mark.timeout(200)
def test_stopped_half_way_it_ends_what_it_started_and_says_so(shown):
    process = shown.start()
    until(lambda: len(shown.pids()) > 3, seconds=60)
    process.send_signal(signal.SIGTERM)
    _, complained = process.communicate(timeout=60)
    assert process.returncode == 1
    assert complained.startswith("CommandError: Stopped by SIGTERM; the platform was ended.")
    assert complained.count("\n") == 1
    assert shown.kept() == ["log"]
    assert shown.pids() == []


@pytest.mark.timeout(200)
def test_killed_it_takes_the_platform_with_it(shown):
    process = shown.start()
    until(lambda: len(shown.pids()) > 3, seconds=60)
    process.kill()
    process.communicate(timeout=20)
    until(lambda: not shown.pids(), seconds=20)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["gone.mp4", "a.mp4"], "There is no file "),
        (["a.mp4"], "One clip is already a film"),
        (["a.mp4"] * 201, "A film has at most 200 clips; these are 201."),
    ],
)
def test_clips_that_make_no_film_are_refused_before_anything_starts(tmp_path, names, sentence):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(demo_platform.Failed, match=sentence):
        demo.run(tmp_path / "demo", [tmp_path / name for name in names], screen=None)
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("content", "pictures", "sentence"),
    [
        (b"no film", 0, "does not play"),
        (media_files.sound(), 0, "does not play"),
        (media_files.clip(2), 99, "The film has 20 pictures instead of 99."),
        (media_files.clip(2)[:-2000], 0, "The film shows|does not play"),
    ],
)
def test_a_film_that_is_not_what_was_promised_is_told(tmp_path, content, pictures, sentence):
    film = tmp_path / "film.mp4"
    film.write_bytes(content)
    with pytest.raises(demo_platform.Failed, match=sentence):
        demo.show_film(Screen(OutputWrapper(io.StringIO())), film, pictures=pictures)
