"""MP4 indexes read and written: the answers of a real demuxer, and nothing worse than a refusal for a hostile one."""

import random
import subprocess
from fractions import Fraction

import pytest

from jobs.engines import ffmpeg, join, media, mp4
from tests.jobs.kinds.material import pictures

NAMES = ["plain.mp4", "rotated.mp4", "variable.mp4", "silent.mp4", "front.mp4", "hevc.mp4", "larger.mp4"]


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_a_real_demuxer(material, name):
    movie, probe = mp4.read(material(name)), media.probe(material(name))
    assert (movie.video.count, movie.video.width, movie.video.height) == (
        probe.video.frames,
        probe.video.width,
        probe.video.height,
    )
    assert float(movie.video.seconds) == pytest.approx(probe.video.duration, abs=0.001)
    assert movie.video.turned == bool(probe.video.rotation)
    assert (movie.video.fps is None) == probe.video.variable
    assert movie.video.plain
    if probe.audio:
        assert (movie.audio.rate, movie.audio.channels) == (probe.audio.sample_rate, probe.audio.channels)
        assert float(movie.audio.end) == pytest.approx(probe.audio.end, abs=0.03)
    else:
        assert movie.audio is None


def test_what_it_cannot_move_it_says(material):
    with pytest.raises(mp4.Unsupported):
        mp4.read(material("fragments.mp4"))
    for share in (0.1, 0.5, 0.9):
        for name in ("front.mp4", "longer.mp4"):  # index in front, index at the end
            with pytest.raises(mp4.Cut):
                mp4.read(material.half(name, share))


def test_joined_pictures_are_the_clips_pictures(material, tmp_path):
    """Bit for bit, with H.264 of two encoder settings in one film."""
    names = ["plain.mp4", "other-settings.mp4", "longer.mp4"]
    movies = [mp4.read(material(name)) for name in names]
    assert movies[0].video.config != movies[1].video.config
    film = tmp_path / "film.mp4"
    join.join([m.video for m in movies], [m.audio for m in movies], film)
    assert pictures(film) == [picture for name in names for picture in pictures(material(name))]
    probe = media.probe(film)
    assert (probe.cut, probe.video.frames, probe.video.variable) == (False, 100, False)
    assert probe.audio.end == pytest.approx(probe.video.end, abs=0.04)
    check = [ffmpeg.bundled(), "-v", "warning", "-xerror", "-i", str(film), "-f", "null", "-"]
    said = subprocess.run(check, capture_output=True, text=True, check=True)
    assert said.stderr == ""


def test_sound_stays_in_step_over_many_joints(material, tmp_path):
    """60 joints with 21 ms of encoder delay each would drift by more than a second."""
    movie = mp4.read(material("plain.mp4"))
    film = tmp_path / "film.mp4"
    join.join([movie.video] * 60, [movie.audio] * 60, film)
    joined = mp4.read(film)
    assert joined.video.seconds == 60
    assert abs(joined.audio.end - 60) < 0.04
    assert set(joined.audio.deltas) == {1024}


def test_the_index_comes_first(material, tmp_path):
    movie = mp4.read(material("plain.mp4"))
    join.join([movie.video], [movie.audio], tmp_path / "film.mp4")
    data = (tmp_path / "film.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_same_clips_give_the_same_bytes(material, tmp_path):
    movie = mp4.read(material("plain.mp4"))
    for name in ("one.mp4", "two.mp4"):
        join.join([movie.video], [movie.audio], tmp_path / name)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


def test_a_hostile_index_is_refused_or_read(material, tmp_path):
    """400 damaged indexes: no exception but the two that callers expect, and no film larger than its source."""
    whole = material("front.mp4").read_bytes()
    begin, end = whole.index(b"moov"), whole.index(b"mdat")
    dice = random.Random(3)
    path, film = tmp_path / "hostile.mp4", tmp_path / "film.mp4"
    outcomes = set()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 1, 4))):
            at = dice.randrange(begin, end)
            data[at] = dice.choice((0, 1, 0x7F, 0xFF, dice.randrange(256)))
        path.write_bytes(data)
        try:
            movie = mp4.read(path)
        except (mp4.Unsupported, mp4.Cut) as refused:
            outcomes.add(type(refused))
            continue
        outcomes.add(mp4.Movie)
        if movie.video and movie.video.plain and movie.video.fps:
            join.join([movie.video], [], film)
            assert film.stat().st_size < 2 * len(whole)
    assert outcomes == {mp4.Movie, mp4.Unsupported, mp4.Cut}


def test_a_small_file_cannot_promise_much_data(material, tmp_path):
    data = bytearray(material("plain.mp4").read_bytes())
    at = data.index(b"stco") + 12
    first = data[at : at + 4]
    stsz = data.index(b"stsz") + 16
    for sample in range(25):  # every sample as large as the file, all at one place
        data[stsz + 4 * sample : stsz + 4 * sample + 4] = (len(data) - int.from_bytes(first, "big")).to_bytes(4, "big")
    path = tmp_path / "amplifier.mp4"
    path.write_bytes(data)
    with pytest.raises((mp4.Unsupported, mp4.Cut)):
        mp4.read(path)


@pytest.mark.parametrize(
    ("fps", "standard"),
    [("29.97", "30000/1001"), ("30", "30"), ("23.976", "24000/1001"), ("25.001", "25"), ("12.5", "25/2")],
)
def test_standard_rates(fps, standard):
    assert mp4.standard_fps(Fraction(fps)) == Fraction(standard)
