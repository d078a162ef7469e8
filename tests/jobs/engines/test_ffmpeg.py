"""FFmpeg's progress and failures, as the runner sees them."""

import os
import re
import shutil
import signal
import time

import pytest

from jobs.engines import ffmpeg, process
from jobs.errors import ErrorCode, JobError

LIMITS = process.Limits(seconds=30)
ENDLESS = ["-re", "-f", "lavfi", "-i", "testsrc2=s=64x64:r=25", "-f", "null", "-"]


def transcode(args, cwd, **options):
    ffmpeg.transcode(args, cwd=cwd, **{"seconds": 1.0, "limits": LIMITS} | options)


def fake(tmp_path, script: str) -> str:
    """A program in FFmpeg's place."""
    path = tmp_path / "fake-ffmpeg"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return str(path)


def test_version():
    assert re.match(r"n?\d+\.\d+", ffmpeg.version())


def test_progress_rises_to_the_end(tmp_path, material):
    done = []
    clip = shutil.copy(material("longer.mp4"), tmp_path)
    args = [*ffmpeg.source(clip, "video/mp4"), "-c:v", "libx264", "out.mp4"]
    transcode(args, tmp_path, seconds=2.0, on_progress=done.append)
    assert done == sorted(done)
    assert done[-1] == 2.0


def test_a_failure_says_why_without_paths(tmp_path, material):
    broken = tmp_path / "secret-folder" / "clip.mp4"
    broken.parent.mkdir()
    broken.write_bytes(material("plain.mp4").read_bytes()[:500])
    with pytest.raises(JobError) as raised:
        transcode([*ffmpeg.source(broken, "video/mp4"), "out.mp4"], broken.parent)
    error = raised.value
    assert (error.code, error.retryable) == (ErrorCode.ffmpeg_error, False)
    assert "clip.mp4" in error.message
    assert "secret-folder" not in error.message
    assert str(tmp_path) not in error.message


def test_killed_by_somebody_else_may_be_tried_again(tmp_path):
    with pytest.raises(JobError) as raised:
        transcode(ENDLESS, tmp_path, on_start=lambda pid: os.kill(pid, signal.SIGKILL))
    assert (raised.value.code, raised.value.retryable) == (ErrorCode.ffmpeg_error, True)
    assert "SIGKILL" in raised.value.message


@pytest.mark.parametrize(
    ("limits", "code", "args"),
    [
        (process.Limits(file_bytes=20_000), ErrorCode.ffmpeg_error, ["-t", "600", "-c:v", "libx264", "out.mp4"]),
        (process.Limits(cpu_seconds=1), ErrorCode.timeout, ["-t", "600", "-c:v", "libx264", "out.mp4"]),
        # one large picture: an encoder whose thread gets none says nothing of memory, once in 240
        (process.Limits(memory_bytes=300 * 1024**2), ErrorCode.out_of_memory, ["-vf", "scale=16000:9000", "out.avi"]),
    ],
)
def test_limits_have_their_own_words(tmp_path, limits, code, args):
    with pytest.raises(JobError) as raised:
        transcode(["-f", "lavfi", "-i", "testsrc2=s=1280x720:r=25", *args], tmp_path, limits=limits)
    assert (raised.value.code, raised.value.retryable) == (code, False)


def test_stop_ends_it_at_once(tmp_path):
    asked = []

    def stop() -> bool:
        asked.append(time.monotonic())
        return asked[-1] - asked[0] > 0.3

    with pytest.raises(process.Stopped):
        transcode(ENDLESS, tmp_path, stop=stop)
    assert time.monotonic() - asked[0] < 10


def test_a_program_that_floods_ignores_term_and_reads_nothing(tmp_path):
    script = "trap '' TERM; head -c 10000000 /dev/zero | tr '\\0' 'e' >&2; echo progress=continue; while :; do :; done"
    heard = []
    with pytest.raises(process.Stopped):
        transcode([], tmp_path, binary=fake(tmp_path, script), on_progress=heard.append, stop=lambda: bool(heard))


# FAULTS traps 7 and 8, S01: what a file is decides how it is read, whatever it is called.


def disguises(folder, material) -> dict:
    neighbour = material("h264.ts")
    (folder / "neighbour.ts").write_bytes(neighbour.read_bytes())
    return {
        "concat.mp4": b"ffconcat version 1.0\nfile neighbour.ts\n",
        "playlist.ts": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{neighbour}\n#EXT-X-ENDLIST\n".encode(),
        "dash.mp4": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    }


@pytest.mark.parametrize("name", ["concat.mp4", "playlist.ts", "dash.mp4"])
@pytest.mark.parametrize("content_type", ["video/mp4", "video/mp2t", "video/x-matroska"])
def test_a_playlist_opens_nothing(tmp_path, material, name, content_type):
    (tmp_path / name).write_bytes(disguises(tmp_path, material)[name])
    with pytest.raises(JobError) as raised:
        transcode([*ffmpeg.source(tmp_path / name, content_type), "out.mp4"], tmp_path)
    assert raised.value.code is ErrorCode.ffmpeg_error


def test_the_disguise_works_without_the_wall(tmp_path, material):
    (tmp_path / "concat.mp4").write_bytes(disguises(tmp_path, material)["concat.mp4"])
    transcode(["-i", "concat.mp4", "-c", "copy", "stolen.mp4"], tmp_path)
    assert (tmp_path / "stolen.mp4").stat().st_size > 1000


@pytest.mark.parametrize(
    "name", ["-y", "-i", "concat:a|b", "lavfi:movie=x", "pipe:0", "subfile,,start,0,end,9,,:a", "%d.mp4"]
)
def test_a_name_is_only_a_name(tmp_path, material, name):
    (tmp_path / name).write_bytes(material("plain.mp4").read_bytes())
    args = ffmpeg.source(tmp_path.__class__(name), "video/mp4")
    assert args[-1] == f"file:{name}"
    transcode([*args, "-c", "copy", "out.mp4"], tmp_path)
    assert (tmp_path / "out.mp4").is_file()
