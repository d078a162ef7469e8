"""What a file is, and what is refused: sniffing, probing, caps (FAULTS trap 10, S01, S05, S09)."""

import time

import pytest

from jobs.engines import media, process
from jobs.errors import ErrorCode, JobError

TYPES = {
    "plain.mp4": "video/mp4",
    "fragments.mp4": "video/mp4",
    "pcm.mov": "video/quicktime",
    "h264.mkv": "video/x-matroska",
    "vp8.webm": "video/webm",
    "h264.ts": "video/mp2t",
    "camcorder.mts": "video/mp2t",
    "mpeg4.avi": "video/x-msvideo",
    "tone.m4a": "audio/mp4",
    "tone.mp3": "audio/mpeg",
    "tone.wav": "audio/wav",
    "tone.flac": "audio/flac",
    "tone.ogg": "audio/ogg",
    "tone.aac": "audio/aac",
    "still.png": "image/png",
    "still.jpg": "image/jpeg",
    "still.webp": "image/webp",
    "still.tif": "image/tiff",
    "moving.gif": "image/gif",
}


@pytest.mark.parametrize("name", TYPES)
def test_sniffs_from_the_bytes(material, tmp_path, name):
    lying = tmp_path / "x.txt"
    lying.write_bytes(material(name).read_bytes())
    assert media.sniff(lying) == TYPES[name]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"#EXTM3U\n#EXT-X-VERSION:3\n",
        b"ffconcat version 1.0\nfile a.ts\n",
        b"<?xml version='1.0'?><MPD></MPD>",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0\n",
        b"<!doctype html><video src=x>",
        b"just text, long enough to be looked at by everything that guesses" * 10,
        b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
        b"RIFF\x00\x00\x00\x00ACON",
        b"\xff\xfe#\x00E\x00X\x00T\x00",
    ],
)
def test_everything_else_is_nothing(tmp_path, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert media.sniff(path) is None
    with pytest.raises(JobError) as raised:
        media.probe(path, label="clips.3")
    assert raised.value.code is ErrorCode.bad_input
    assert raised.value.message.startswith("clips.3 ")


def test_says_what_is_in_it(material):
    names = [
        "plain.mp4",
        "rotated.mp4",
        "variable.mp4",
        "silent.mp4",
        "h264.ts",
        "camcorder.mts",
        "vp8.webm",
        "mpeg4.avi",
        "fragments.mp4",
        "pcm.mov",
    ]
    done = []
    found = media.probe_all({name: material(name) for name in names}, on_file=done.append)
    assert done == list(range(1, len(names) + 1))
    assert not any(probe.cut for probe in found.values())
    plain, video = found["plain.mp4"], found["plain.mp4"].video
    assert (plain.content_type, video.codec, video.width, video.height, video.pixel_format) == (
        "video/mp4",
        "h264",
        128,
        72,
        "yuv420p",
    )
    assert (video.frames, video.fps, video.variable, video.rotation, video.time_base) == (25, 25.0, False, 0, "1/12800")
    assert (plain.audio.codec, plain.audio.sample_rate, plain.audio.channels) == ("aac", 48000, 1)
    assert plain.audio.end == pytest.approx(1.0, abs=0.03)
    assert found["rotated.mp4"].video.rotation in (90, 270)
    assert found["variable.mp4"].video.variable
    assert found["silent.mp4"].audio is None
    for name in names:
        assert found[name].video.duration == pytest.approx(2.0 if name == "variable.mp4" else 1.0, abs=0.11), name


def test_a_codec_that_nobody_knows_is_another_stream(material):
    spatial, raw = (media.probe(material.unknown("plain.mp4", entry)) for entry in (b"mp4a", b"avc1"))
    assert (spatial.video.codec, spatial.audio, spatial.streams[1].kind) == ("h264", None, "other")
    assert (raw.video, raw.streams[0].kind, raw.cut) == (None, "other", False)


def test_a_trimmed_video_is_what_it_shows_and_not_cut(material):
    found = media.probe(material("trimmed.mov"))
    assert not found.cut
    assert (found.video.start, found.video.duration) == (pytest.approx(0.0, abs=0.05), pytest.approx(1.5, abs=0.05))


def test_a_codec_has_its_own_name_not_its_decoders(material):
    assert media.probe(material("tone.mp3")).audio.codec == "mp3"


@pytest.mark.parametrize("name", ["still.png", "still.jpg", "still.webp", "still.tif", "still.gif"])
def test_pictures(material, name):
    video = media.probe(material(name)).video
    assert (video.width, video.height, video.frames) == (300, 200, 1)


def test_a_moving_gif_is_no_picture(material):
    with pytest.raises(JobError, match="is animated or has several pages"):
        media.probe(material("moving.gif"))


@pytest.mark.parametrize("name", ["front.mp4", "h264.mkv", "h264.ts", "camcorder.mts", "fragments.mp4"])
def test_a_cut_file_is_seen(material, name):
    assert not media.probe(material(name)).cut
    assert media.probe(material.half(name, 0.61)).cut


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("huge.png", "more than 67108864 pixels"),
        ("many-streams.mp4", "20 streams"),
        ("gap.mp4", "stands still for 36"),
        ("gap.mkv", "stands still for 36"),
        ("rapid.mp4", "pictures a second"),
    ],
)
def test_caps_name_what_is_too_much(material, name, what):
    path = material(name)
    started = time.monotonic()
    with pytest.raises(JobError) as raised:
        media.probe(path, label="clips.1")
    assert time.monotonic() - started < 60
    assert raised.value.code is ErrorCode.bad_input
    assert raised.value.message.startswith("clips.1 ")
    assert what in raised.value.message


def test_years_are_refused(material, tmp_path):
    declared = bytearray(material("h264.mkv").read_bytes())
    at = declared.index(b"\x44\x89\x88") + 3  # the Duration element: a double, in milliseconds
    declared[at : at + 8] = b"\x43" + bytes(7)
    path = tmp_path / "years.mkv"
    path.write_bytes(declared)
    with pytest.raises(JobError, match="lasts"):
        media.probe(path)


def test_what_needs_more_than_the_limits_is_refused_by_name(material):
    small = process.Limits(seconds=20, memory_bytes=90 * 1024**2)
    with pytest.raises(JobError) as raised:
        media.probe(material("plain.mp4"), label="clips.0", limits=small)
    assert raised.value.code in (ErrorCode.bad_input, ErrorCode.internal_error)


def test_what_takes_too_long_is_refused_by_name(material, monkeypatch):
    def run(*args, on_line, stop, **options):
        on_line("{}")  # of the first file; the second has had its time
        stop()

    monkeypatch.setattr(process, "run", run)
    files = {f"clips.{n}": material("plain.mp4") for n in range(2)}
    with pytest.raises(JobError, match=r"clips.1 cannot be read within") as raised:
        media.probe_all(files, limits=process.Limits(seconds=-1))
    assert raised.value.code is ErrorCode.bad_input


def test_two_hundred_files_have_the_time_of_two_hundred(material, monkeypatch):
    given = []

    def run(*args, limits, **options):
        given.append(limits)
        return process.Finished(0, [])

    monkeypatch.setattr(process, "run", run)
    with pytest.raises(JobError, match="cannot be read"):
        media.probe_all({f"clips.{n}": material("plain.mp4") for n in range(200)})
    assert given[0].seconds >= 200 * media.PROBE_LIMITS.seconds
    assert given[0].cpu_seconds >= 200 * media.PROBE_LIMITS.cpu_seconds


def test_stop_ends_the_reader(material):
    with pytest.raises(process.Stopped):
        media.probe(material("plain.mp4"), stop=lambda: True)
