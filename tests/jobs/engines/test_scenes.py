"""Scenes, pictures and loudness from one decode pass, compared with videos whose cuts the test placed."""

import subprocess

import pytest

from jobs.engines import ffmpeg, media, scenes
from jobs.engines.scenes import Frame, Loudness, Scene

H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]


def run(folder, *args: str) -> None:
    subprocess.run([ffmpeg.bundled(), "-v", "error", "-nostdin", "-y", *args], cwd=folder, check=True, timeout=60)


def cut_together(path, *parts: tuple[str, float]):
    """A video of 96x54 and 25 pictures a second: each part is a lavfi source and its seconds."""
    inputs = [word for source, seconds in parts for word in ("-f", "lavfi", "-i", f"{source}=s=96x54:r=25:d={seconds}")]
    joined = "".join(f"[{number}]setsar=1,format=yuv420p[v{number}];" for number in range(len(parts)))
    joined += "".join(f"[v{number}]" for number in range(len(parts))) + f"concat=n={len(parts)}"
    run(path.parent, *inputs, "-filter_complex", joined, *H264, path.name)
    return path


def passed(folder, path, *, sound=False, speech=False) -> tuple[list[Frame], float]:
    """(frames, seconds of video) after the pass over `path` in `folder`."""
    folder.mkdir(exist_ok=True)
    found = media.probe(path)
    source, end = ffmpeg.source(path, found.content_type), found.video.end - found.start
    run(folder, "-xerror", *scenes.one_pass(source, (96, 54), end, sound=sound, speech=speech))
    return scenes.read_frames(folder), end


def test_finds_the_cuts_that_were_placed(tmp_path):
    video = cut_together(
        tmp_path / "cut.mp4",
        ("testsrc2", 1.0),
        ("smptebars", 1.6),
        ("testsrc2", 0.8),
        ("rgbtestsrc", 2.2),
        ("yuvtestsrc", 0.6),
    )
    frames, end = passed(tmp_path / "run", video)
    assert scenes.cuts(frames) == pytest.approx([1.0, 2.6, 3.4, 5.6], abs=0.04)  # a picture lasts 0.04 s
    found = scenes.scenes(frames, end)
    assert [part.start for part in found] == pytest.approx([0.0, 1.0, 2.6, 3.4, 5.6], abs=0.04)
    assert found[-1].end == pytest.approx(6.2, abs=0.04)
    chosen = scenes.keyframes(frames, found, most=60)
    assert [number for number, _frame in chosen] == [0, 1, 2, 3, 4]
    assert all(found[number].start <= frame.at < found[number].end for number, frame in chosen)
    assert all((tmp_path / "run" / frame.file).stat().st_size for _number, frame in chosen)


def test_a_change_of_colour_alone_is_a_cut(tmp_path):
    """Red and blue of nearly the same brightness, which a measure of brightness would not tell apart."""
    folder = tmp_path / "made"
    folder.mkdir()
    inputs = [word for c in ("0xd00000", "0x3030ff") for word in ("-f", "lavfi", "-i", f"color=c={c}:s=96x54:r=25:d=1")]
    run(folder, *inputs, "-filter_complex", "[0][1]concat=n=2", *H264, "two.mp4")
    frames, _end = passed(tmp_path / "run", folder / "two.mp4")
    assert scenes.cuts(frames) == pytest.approx([1.0], abs=0.04)


def test_motion_is_no_cut_and_a_flash_is_one(tmp_path):
    moving = cut_together(tmp_path / "moving.mp4", ("testsrc2", 2.0))
    frames, end = passed(tmp_path / "run", moving)
    assert scenes.scenes(frames, end) == [Scene(0.0, pytest.approx(2.0, abs=0.05))]
    flash = cut_together(tmp_path / "flash.mp4", ("smptebars", 1.0), ("rgbtestsrc", 0.2), ("smptebars", 1.0))
    frames, _end = passed(tmp_path / "other", flash)
    assert scenes.cuts(frames) == pytest.approx([1.0], abs=0.04)


def test_the_whole_video_is_sampled(tmp_path):
    video = cut_together(tmp_path / "long.mp4", ("testsrc2", 5.0))
    frames, end = passed(tmp_path / "run", video)
    assert [frame.at for frame in frames] == pytest.approx([0.52 * number for number in range(10)], abs=0.05)
    chosen = scenes.evenly(frames, end, 5)
    assert [frame.at for frame in chosen] == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5], abs=0.3)


@pytest.mark.parametrize(("seconds", "span"), [(5.0, 0.0), (3.0, None)])
def test_the_figures_of_a_sound_are_those_of_ebu_r128(tmp_path, seconds, span):
    """EBU Tech 3341, test case 1: a stereo sine of 1 kHz at -23 dBFS is -23.0 ±0.1 LUFS."""
    tone = f"aevalsrc=exprs=0.0708*sin(2*PI*1000*t)|0.0708*sin(2*PI*1000*t):s=48000:d={seconds}"
    run(
        tmp_path,
        *("-f", "lavfi", "-i", "testsrc2=s=96x54:r=25:d=5", "-f", "lavfi", "-i", tone),
        *(*H264, "-c:a", "pcm_s16le", "tone.mov"),
    )
    passed(tmp_path / "run", tmp_path / "tone.mov", sound=True, speech=True)
    found = scenes.read_loudness(tmp_path / "run", 0.0)
    assert found == Loudness(pytest.approx(-23.0, abs=0.1), span, pytest.approx(-23.0, abs=0.2))
    speech = media.probe(tmp_path / "run" / scenes.SPEECH).audio
    assert (speech.sample_rate, speech.channels, speech.duration) == (16000, 1, pytest.approx(seconds, abs=0.01))


@pytest.mark.parametrize(
    ("written", "start", "found"),
    [
        (None, 0.0, Loudness(None, None, None)),
        ("", 0.0, Loudness(None, None, None)),
        ("I=-70.000\nlavfi.r128.true_peak=0.000", 0.0, Loudness(None, None, None)),
        ("I=-70.000\nlavfi.r128.true_peak=0.500", 0.0, Loudness(None, None, -6.0)),
        ("I=-18.250\nlavfi.r128.LRA=3.140\nlavfi.r128.true_peak=1.000", 0.0, Loudness(-18.2, None, 0.0)),
        ("I=-18.250\nlavfi.r128.LRA=3.140\nlavfi.r128.true_peak=1.000", -2.0, Loudness(None, None, None)),
    ],
)
def test_what_cannot_be_measured_is_none(tmp_path, written, start, found):
    if written is not None:
        head = "frame:0    pts:0       pts_time:0\nlavfi.r128." if written else ""
        (tmp_path / scenes.LOUDNESS).write_text(f"{head}{written}\n")
    assert scenes.read_loudness(tmp_path, start) == found


def frames_at(*times: float) -> list[Frame]:
    return [Frame(number, at, 0.0) for number, at in enumerate(times)]


@pytest.mark.parametrize(
    ("hits", "found"),
    [
        ([], []),
        ([0.0, 0.2], []),
        ([1.0, 1.2, 1.4, 1.6], [1.0, 1.6]),
        ([1.0, 1.5], [1.0, 1.5]),
    ],
)
def test_hits_within_half_a_second_are_one_cut(hits, found):
    assert scenes.cuts([Frame(number, at, 0.9) for number, at in enumerate(hits)]) == found


def test_of_many_scenes_the_longest_have_key_frames():
    parts = [Scene(0, 1), Scene(1, 4), Scene(4, 5), Scene(5, 9)]
    frames = frames_at(0, 1, 2.4, 3, 4, 5, 6, 7.2, 8)
    assert [(number, frame.at) for number, frame in scenes.keyframes(frames, parts, 2)] == [(1, 2.4), (3, 7.2)]


def test_a_scene_without_a_picture_kept_has_no_key_frame(monkeypatch):
    monkeypatch.setattr(scenes, "PICTURES_MOST", 2)
    parts = [Scene(0, 1), Scene(1, 2), Scene(2, 3)]
    assert [number for number, _frame in scenes.keyframes(frames_at(0, 1, 2), parts, 60)] == [0, 1]


@pytest.mark.parametrize(
    ("size", "longest", "fitted"),
    [
        ((1920, 1080), 640, (640, 360)),
        ((1080, 1920), 640, (360, 640)),
        ((100, 50), 640, (100, 50)),
        ((101, 51), 640, (100, 52)),
        ((8192, 2), 640, (640, 2)),
        ((1, 1), 640, (2, 2)),
    ],
)
def test_sizes_are_even_and_never_larger_than_needed(size, longest, fitted):
    assert scenes.fitted(*size, longest) == fitted


@pytest.mark.parametrize(("count", "grid"), [(1, (1, 1)), (2, (2, 1)), (7, (3, 3)), (30, (6, 5)), (36, (6, 6))])
def test_a_contact_sheet_holds_all(count, grid):
    _args, columns, rows = scenes.contact_sheet("cell-%02d.jpg", count, (32, 18), "sheet.jpg")
    assert (columns, rows) == grid
    assert columns * rows >= count
