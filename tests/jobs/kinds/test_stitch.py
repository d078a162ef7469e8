"""STITCH, done for real: what matches is copied, what differs is encoded, what is broken is refused by its name."""

import stat
import subprocess

import pytest

from jobs.engines import ffmpeg, media, mp4
from jobs.errors import ErrorCode, JobError
from jobs.kinds.base import Abort
from jobs.kinds.stitch import Stitch
from tests.jobs.kinds.material import difference, loudness, pictures
from tests.jobs.kinds.rig import Rig, refused, validated

KIND = Stitch()
SOUND = "upload:" + "f" * 32


def reference(number: int) -> str:
    return f"upload:{number:032d}"


def rig_for(folder, clips, audio=None, binary=None, **params) -> Rig:
    inputs = {reference(number): clip for number, clip in enumerate(clips)}
    params["clips"] = list(inputs)
    if audio:
        params["audio"], inputs[SOUND] = SOUND, audio
    return Rig(folder, validated(KIND, **params), inputs, binary)


def stitch(folder, clips, **options):
    """(film, its probe, the rig) of these clips; the film has decoded without a word."""
    rig = rig_for(folder, clips, **options)
    KIND.run(rig)
    film = rig.outputs["film.mp4"]
    check = [ffmpeg.bundled(), "-v", "warning", "-xerror", "-i", str(film), "-f", "null", "-"]
    said = subprocess.run(check, capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")
    return film, media.probe(film), rig


def encoded(rig: Rig) -> int:
    """How many clips had their pictures encoded."""
    return sum(command.count("libx264") for command in rig.commands)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({}, "clips"),
        ({"clips": [reference(0)]}, "clips"),
        ({"clips": [reference(n) for n in range(201)]}, "clips"),
        ({"clips": [reference(0), "movie=/etc/passwd"]}, "clips"),
        ({"clips": [reference(0), "upload:../../etc/passwd"]}, "clips"),
        ({"clips": [reference(0), 7]}, "clips"),
        ({"clips": reference(0)}, "clips"),
        ({"audio": "lavfi:anullsrc"}, "audio"),
        ({"width": 101}, "width"),
        ({"height": 5000}, "height"),
        ({"fps": float("nan")}, "fps"),
        ({"fps": 0}, "fps"),
        ({"fps": "25"}, "fps"),
        ({"crossfade": -1}, "crossfade"),
        ({"crossfade": 2.1}, "crossfade"),
    ],
)
def test_refuses_by_field(params, field):
    if field != "clips":
        params = {"clips": [reference(0), reference(1)]} | params
    assert field in refused(KIND, **params)


@pytest.mark.parametrize(("clips", "price"), [(2, 5), (9, 5), (10, 6), (200, 25)])
def test_price_grows_with_the_clips(settings, clips, price):
    settings.JOBSITE = settings.JOBSITE | {"PRICE_STITCH_BASE": 5}
    assert KIND.price(validated(KIND, clips=[reference(n) for n in range(clips)])) == price


@pytest.mark.parametrize(
    ("names", "frames", "to_encode"),
    [
        (["plain.mp4", "longer.mp4"], [25, 50], 0),
        (["plain.mp4", "plain.mp4", "plain.mp4"], [25, 25, 25], 0),
        (["plain.mp4", "other-settings.mp4", "front.mp4"], [25, 25, 50], 0),
        (["plain.mp4", "longer.mp4", "larger.mp4"], [25, 50, 25], 1),
        (["plain.mp4", "longer.mp4", "rotated.mp4"], [25, 50, 25], 1),
        (["plain.mp4", "variable.mp4"], [25, 49], 1),
        (["plain.mp4", "hevc.mp4"], [25, 25], 1),
        (["hevc.mp4", "hevc.mp4"], [25, 25], 0),
        (["rotated.mp4", "rotated.mp4"], [25, 25], 0),
        (["plain.mp4", "pcm.mov"], [25, 25], 0),
        (["plain.mp4", "h264.mkv", "h264.ts", "camcorder.mts"], [25, 25, 25, 25], 0),
        (["plain.mp4", "fragments.mp4"], [25, 25], 1),
        (["plain.mp4", "vp8.webm", "mpeg4.avi"], [25, 25, 25], 2),
        (["plain.mp4", "short-sound.mp4", "long-sound.mp4"], [25, 25, 25], 0),
        (["silent.mp4", "plain.mp4", "silent.mp4"], [25, 25, 25], 0),
        (["plain.mp4", "trimmed.mov"], [25, 37], 1),
    ],
)
def test_films(tmp_path, material, names, frames, to_encode):
    film, probe, rig = stitch(tmp_path / "run", [material(name) for name in names])
    video, sound = probe.video, probe.audio
    assert abs(video.frames - sum(frames)) <= min(2, to_encode)
    assert (video.fps, video.variable) == (pytest.approx(25.0), False)
    assert sound.end == pytest.approx(video.end, abs=0.04)
    assert mp4.read(film).audio.end == pytest.approx(float(mp4.read(film).video.seconds), abs=0.04)
    assert encoded(rig) == to_encode
    assert rig.fractions == sorted(rig.fractions)
    assert set(rig.outputs) == {"film.mp4"}


def test_copied_pictures_are_untouched_and_encoded_ones_are_the_same_to_the_eye(tmp_path, material):
    names = ["plain.mp4", "vp8.webm", "longer.mp4"]
    film, _probe, _rig = stitch(tmp_path / "run", [material(name) for name in names])
    shown, own = pictures(film), [pictures(material(name)) for name in names]
    assert shown[:25] == own[0]
    assert shown[50:] == own[2]
    assert max(map(difference, shown[25:50:6], own[1][::6])) < 8


def test_a_rotated_clip_stands_upright(tmp_path, material):
    film, probe, _rig = stitch(
        tmp_path / "run", [material("plain.mp4"), material("longer.mp4"), material("rotated.mp4")]
    )
    assert (probe.video.width, probe.video.height, probe.video.rotation) == (128, 72, 0)
    turned = Rig(tmp_path / "turned", {}, {"clip": material("rotated.mp4")})
    args = [*ffmpeg.source(turned.input("clip"), "video/mp4"), "-vf", "scale=128:72", "-an", "turned.mp4"]
    turned.ffmpeg(args, seconds=1)
    assert difference(pictures(film)[80], pictures(tmp_path / "turned" / "turned.mp4")[5]) < 12


def test_a_film_of_a_film(tmp_path, material):
    """What STITCH made of clips with different settings can be an input again."""
    film, _probe, _rig = stitch(tmp_path / "one", [material("plain.mp4"), material("other-settings.mp4")])
    _film, probe, rig = stitch(tmp_path / "two", [film, material("plain.mp4"), material("longer.mp4")])
    assert abs(probe.video.frames - 125) <= 1
    assert encoded(rig) == 1


@pytest.mark.parametrize("crossfade", [None, 0.2])
def test_a_clip_whose_size_changes_in_the_middle(tmp_path, material, crossfade):
    options = {"crossfade": crossfade} if crossfade else {}
    _film, probe, _rig = stitch(tmp_path / "run", [material("plain.mp4"), material.call()], **options)
    assert abs(probe.video.frames - (70 if crossfade else 75)) <= 1


def test_a_tilted_clip_keeps_its_size(tmp_path, material):
    _film, probe, _rig = stitch(tmp_path / "run", [material("tilted.mp4")] * 2, fps=30)
    assert (probe.video.width, probe.video.height) == (72, 128)


def test_all_rates_vary(tmp_path, material):
    _film, probe, rig = stitch(tmp_path / "run", [material("variable.mp4"), material("variable.mp4")])
    assert (probe.video.variable, encoded(rig)) == (False, 2)
    assert probe.video.duration == pytest.approx(3.92, abs=0.2)


def test_no_sound_anywhere_is_a_silent_film(tmp_path, material):
    _film, probe, rig = stitch(tmp_path / "run", [material("silent.mp4"), material("silent.mp4")])
    assert (probe.audio, len(rig.commands)) == (None, 1)


@pytest.mark.parametrize(
    "name", ["tone.mp3", "tone.m4a", "tone.wav", "tone.flac", "tone.ogg", "tone.aac", "long-sound.mp4"]
)
def test_an_audio_track_is_cut_or_filled_to_the_film(tmp_path, material, name):
    clips = [material("plain.mp4"), material("silent.mp4")]
    film, probe, rig = stitch(tmp_path / "run", clips, audio=material(name))
    assert (probe.video.frames, encoded(rig), probe.audio.channels) == (50, 0, 2)
    assert abs(mp4.read(film).audio.end - 2) < 0.04


def test_progress_goes_on_while_an_audio_track_is_encoded(tmp_path, material):
    clips = [material("plain.mp4"), material("vp8.webm")]
    rig = rig_for(tmp_path / "run", clips, audio=material("tone.wav"))
    shares = []
    run_ffmpeg = rig.ffmpeg

    def ffmpeg(args, *, seconds, start=0.0, end=1.0):
        shares.extend((start, end))
        run_ffmpeg(args, seconds=seconds, start=start, end=end)

    rig.ffmpeg = ffmpeg
    KIND.run(rig)
    assert shares == sorted(shares)


def test_asked_for_size_and_rate(tmp_path, material):
    clips = [material("plain.mp4"), material("larger.mp4")]
    _film, probe, rig = stitch(tmp_path / "run", clips, width=64, height=64, fps=12)
    assert (probe.video.width, probe.video.height, probe.video.fps, probe.video.frames) == (64, 64, 12.0, 24)
    assert encoded(rig) == 2
    _film, probe, rig = stitch(tmp_path / "same", clips, width=200, height=200)
    assert (probe.video.width, probe.video.height, encoded(rig)) == (200, 200, 1)
    _film, probe, rig = stitch(tmp_path / "wide", clips, width=64)
    assert (probe.video.width, probe.video.height) == (64, 36)


@pytest.mark.parametrize(
    ("names", "crossfade", "frames"),
    [
        (["plain.mp4", "longer.mp4", "plain.mp4"], 0.4, [25, 50, 25, -10, -10]),
        (["plain.mp4", "silent.mp4", "vp8.webm"], 0.2, [25, 25, 25, -5, -5]),
        (["longer.mp4", "rotated.mp4", "variable.mp4"], 0.5, [50, 25, 49, -12, -12]),  # half of the shortest
        (["plain.mp4", "larger.mp4"], 2, [25, 25, -12]),
        (["silent.mp4", "silent.mp4"], 1, [25, 25, -12]),
        (["plain.mp4", "longer.mp4"], 0, [25, 50]),
    ],
)
def test_cross_fades(tmp_path, material, names, crossfade, frames):
    film, probe, rig = stitch(tmp_path / "run", [material(name) for name in names], crossfade=crossfade)
    assert abs(probe.video.frames - sum(frames)) <= 2
    assert encoded(rig) == (len(names) if crossfade else 0)
    assert (probe.audio is None) == (set(names) == {"silent.mp4"})
    if probe.audio:
        assert mp4.read(film).audio.end == pytest.approx(float(mp4.read(film).video.seconds), abs=0.04)
    assert rig.fractions == sorted(rig.fractions)
    assert not list(rig.workdir.glob("part*.pcm"))


def test_all_pictures_of_a_cross_faded_film_are_of_one_format_that_browsers_play(tmp_path, material):
    """FFmpeg's xfade works in 4:4:4: what came out of it was a High 4:4:4 part within the film."""
    clips = [material("plain.mp4"), material("longer.mp4")]
    film, _probe, rig = stitch(tmp_path / "run", clips, crossfade=0.2)
    parts = sorted(rig.workdir.glob("part*v.mp4"))
    assert [media.probe(part).video.pixel_format for part in parts] == ["yuv420p", "yuv420p"]
    _film, probe, _rig = stitch(tmp_path / "again", [film, clips[0]], crossfade=0.2)  # the film is itself a clip
    assert abs(probe.video.frames - (25 + 50 - 5 + 25 - 5)) <= 2


def test_a_cross_fade_shows_one_clip_then_both_then_the_other(tmp_path, material):
    film, _probe, _rig = stitch(tmp_path / "run", [material("plain.mp4"), material("mirrored.mp4")], crossfade=0.4)
    shown, old, new = pictures(film), pictures(material("plain.mp4")), pictures(material("mirrored.mp4"))
    assert len(shown) == 40
    assert difference(shown[14], old[14]) < 8
    assert difference(shown[25], new[10]) < 8
    both = bytes((a + b) // 2 for a, b in zip(old[20], new[5], strict=True))
    assert difference(shown[20], both) < 8
    assert difference(old[20], new[5]) > 30


def test_sound_fades_with_the_pictures(tmp_path, material):
    """A tone into silence: whole before the fade, half in its middle, none after it."""
    film, _probe, _rig = stitch(tmp_path / "run", [material("longer.mp4"), material("quiet.mp4")], crossfade=0.4)
    loud = loudness(film)
    whole = loud(1.0, 1.5)
    assert loud(1.75, 1.85) == pytest.approx(whole / 2, rel=0.15)
    assert loud(2.1, 2.5) < whole / 100


def test_cross_fades_under_an_audio_track(tmp_path, material):
    clips = [material("plain.mp4"), material("longer.mp4")]
    film, probe, _rig = stitch(tmp_path / "run", clips, audio=material("tone.mp3"), crossfade=0.2)
    assert (probe.video.frames, probe.audio.channels) == (70, 2)
    assert abs(mp4.read(film).audio.end - 2.8) < 0.04


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("front.mp4", 0.5),
        ("longer.mp4", 0.5),
        ("fragments.mp4", 0.61),
        ("h264.mkv", 0.5),
        ("h264.ts", 0.5),
        ("mpeg4.avi", 0.5),
    ],
)
def test_half_a_clip_is_an_ffmpeg_error_that_names_it(tmp_path, material, name, share):
    rig = rig_for(tmp_path / "run", [material("plain.mp4"), material.half(name, share), material("plain.mp4")])
    with pytest.raises(JobError) as raised:
        KIND.run(rig)
    assert raised.value.code is ErrorCode.ffmpeg_error
    assert raised.value.message.startswith("clips.1")
    assert str(tmp_path) not in raised.value.message
    assert rig.outputs == {}


@pytest.mark.parametrize(
    "name", ["tone.m4a", "tone.mp3", "still.png", "concat", "playlist", "empty", "gap.mp4", "gap.mkv"]
)
def test_what_is_no_video_is_bad_input_by_name(tmp_path, material, name):
    odd = {"concat": b"ffconcat version 1.0\nfile plain.mp4\n", "playlist": b"#EXTM3U\nplain.mp4\n", "empty": b""}
    path = material.folder / f"{name}.mp4" if name in odd else material(name)
    if name in odd:
        path.write_bytes(odd[name])
    rig = rig_for(tmp_path / "run", [material("plain.mp4"), path])
    with pytest.raises(JobError) as raised:
        KIND.run(rig)
    assert raised.value.code is ErrorCode.bad_input
    assert raised.value.message.startswith("clips.1 ")


def test_an_audio_input_without_sound(tmp_path, material):
    rig = rig_for(tmp_path / "run", [material("plain.mp4")] * 2, audio=material("silent.mp4"))
    with pytest.raises(JobError, match="audio has no sound") as raised:
        KIND.run(rig)
    assert raised.value.code is ErrorCode.bad_input


def test_odd_clips_are_encoded_two_at_once(tmp_path, material):
    names = ["plain.mp4", "longer.mp4", "vp8.webm", "variable.mp4", "front.mp4", "upright.mp4", "silent.mp4"]
    film, probe, rig = stitch(tmp_path / "run", [material(name) for name in names])
    assert [command.count("libx264") for command in rig.commands if "libx264" in command] == [2, 1]
    assert "encoding: clips.2 and clips.3" in rig.stages
    assert abs(probe.video.frames - (25 + 50 + 25 + 49 + 50 + 25 + 25)) <= 2
    assert difference(pictures(film)[80], pictures(material("vp8.webm"))[5]) < 8
    assert rig.fractions == sorted(rig.fractions)


@pytest.mark.parametrize("guilty", [1, 2])
def test_of_two_encoded_at_once_the_damaged_one_is_named(tmp_path, material, guilty):
    clips = [material("plain.mp4"), *[material("larger.mp4")] * 2, material("longer.mp4")]
    clips[guilty] = material.damaged("larger.mp4")
    rig = rig_for(tmp_path / "run", clips, width=128, height=72)
    with pytest.raises(JobError) as raised:
        KIND.run(rig)
    assert raised.value.code is ErrorCode.ffmpeg_error
    assert raised.value.message.startswith(f"clips.{guilty}: ")


def test_code_zero_with_a_short_part_is_refused(tmp_path, material):
    script = tmp_path / "ffmpeg"
    script.write_text(f"#!/bin/sh\ncp {material('plain.mp4')} part1v.mp4\ncp {material('plain.mp4')} part1a.mp4\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    clips = [material("longer.mp4"), material("variable.mp4"), material("longer.mp4")]
    rig = rig_for(tmp_path / "run", clips, binary=str(script))
    with pytest.raises(JobError, match=r"^clips\.1 gave 25 of 49 pictures") as raised:
        KIND.run(rig)
    assert raised.value.code is ErrorCode.ffmpeg_error


@pytest.mark.parametrize("stage", ["looking at the clips", "encoding: clips.1", "joining", "checking"])
@pytest.mark.parametrize("crossfade", [0, 0.2])
def test_cancel_in_any_stage(tmp_path, material, stage, crossfade):
    clips = [material("plain.mp4"), material("larger.mp4"), material("plain.mp4")]
    rig = rig_for(tmp_path / "run", clips, crossfade=crossfade)
    rig.abort_when = lambda rig: stage in rig.stages
    with pytest.raises(Abort):
        KIND.run(rig)
    assert rig.stages[-1] == stage
