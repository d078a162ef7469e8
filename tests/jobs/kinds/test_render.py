"""RENDER with the preview engine, drawn for real: repeatable, moving, its prompt readable, nothing of it obeyed."""

import hashlib
import random
import re
import stat
import subprocess

import pytest

from jobs.engines import ffmpeg, media, preview
from jobs.errors import ErrorCode, JobError
from jobs.kinds.base import Abort
from jobs.kinds.render import Render
from tests.jobs.kinds.material import difference, pictures
from tests.jobs.kinds.rig import Rig, refused, validated

KIND = Render()
IMAGE = "upload:" + "0" * 32
SMALL = {"width": 128, "height": 72, "seconds": 2, "fps": 12}


def render(folder, image=None, **params):
    """The finished video and the rig that made it."""
    if image:
        params["image"] = IMAGE
    rig = Rig(folder, validated(KIND, **{"prompt": "A fox at dawn"} | SMALL | params), {IMAGE: image})
    KIND.run(rig)
    return rig.outputs["video.mp4"], rig


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"prompt": "a\x00b"}, "prompt"),
        ({"prompt": "a\x1b[31mb"}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"seconds": 0.5}, "seconds"),
        ({"seconds": 61}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": float("inf")}, "seconds"),
        ({"seconds": 1e308}, "seconds"),
        ({"seconds": 10**400}, "seconds"),
        ({"seconds": "1_0"}, "seconds"),
        ({"seconds": "4"}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"fps": 7}, "fps"),
        ({"fps": 24.5}, "fps"),
        ({"fps": "movie=x"}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"width": 63}, "width"),
        ({"width": 101}, "width"),
        ({"height": 1922}, "height"),
        ({"height": -2}, "height"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"image": "concat:a|b"}, "image"),
        ({"image": "../../etc/passwd"}, "image"),
    ],
)
def test_refuses_by_field(params, field):
    if field != "prompt":
        params = {"prompt": "x"} | params
    assert field in refused(KIND, **params)


def test_defaults_and_line_breaks():
    params = validated(KIND, prompt="one\r\ntwo\nthree", fps=24.0)
    assert params == {
        "prompt": "one\ntwo\nthree",
        "seconds": 4.0,
        "fps": 24,
        "width": 640,
        "height": 360,
        "seed": 0,
    }


@pytest.mark.parametrize(("seconds", "price"), [(1, 3), (1.01, 6), (60, 180)])
def test_price_is_by_the_second_begun(settings, seconds, price):
    settings.JOBSITE = settings.JOBSITE | {"PRICE_RENDER_SECOND": 3}
    assert KIND.price(validated(KIND, prompt="x", seconds=seconds)) == price


@pytest.mark.parametrize(
    ("width", "height", "tier"), [(640, 360, "1K"), (64, 1280, "1K"), (1282, 64, "2K"), (1920, 1080, "2K")]
)
def test_tier_is_by_the_longest_side(width, height, tier):
    assert KIND.tier(validated(KIND, prompt="x", width=width, height=height)) == tier


def test_the_same_seed_gives_the_same_bytes_and_others_differ(tmp_path):
    video, _rig = render(tmp_path / "a", seed=7)
    again, _rig = render(tmp_path / "b", seed=7)
    assert sha256(video) == sha256(again)
    last = [pictures(video)[-1]]
    for name, params in {"c": {"seed": 8}, "d": {"seed": 7, "prompt": "A fox at dusk"}}.items():
        last.append(pictures(render(tmp_path / name, **params)[0])[-1])
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert difference(last[one], last[other]) > 8


@pytest.mark.parametrize("name", [None, "still.png", "still.jpg", "still.webp", "still.tif", "still.gif"])
def test_every_second_moves(tmp_path, material, name):
    video, rig = render(tmp_path / "run", image=material(name) if name else None, seconds=4)
    shown = pictures(video)
    assert len(shown) == 48
    for second in range(4):
        assert difference(shown[12 * second], shown[12 * second + 11]) > 1.5
    assert rig.fractions == sorted(rig.fractions)
    assert rig.fractions[-1] == 1.0


def test_is_what_was_asked_for_and_says_what_it_is(tmp_path):
    import av

    video, _rig = render(tmp_path / "run", width=160, height=90, fps=15, seconds=1.4)
    probe = media.probe(video)
    stream = probe.video
    assert (stream.codec, stream.width, stream.height, stream.frames, stream.fps) == ("h264", 160, 90, 21, 15.0)
    assert (stream.pixel_format, probe.audio) == ("yuv420p", None)
    with av.open(str(video)) as container:
        assert container.metadata["title"] == "Jobsite preview"
        assert container.metadata["comment"] == preview.COMMENT


def ink(picture: bytes) -> int:
    """How many white pixels, without the bar at the bottom that shows the time."""
    return sum(value > 225 for value in picture[: len(picture) * 19 // 20])


def test_the_prompt_stands_on_the_first_second_and_then_goes(tmp_path):
    few = pictures(render(tmp_path / "few", prompt="Hi", seconds=3, width=320, height=180)[0])
    many = pictures(render(tmp_path / "many", prompt="Γειά, мир, world. " * 20, seconds=3, width=320, height=180)[0])
    assert min(map(ink, few[:12])) > ink(few[-1]) + 100
    assert min(map(ink, many[:12])) > ink(many[-1]) + 1000
    lowest_quarter = many[6][len(many[6]) * 3 // 4 :]
    assert ink(lowest_quarter) > 200, "the last lines are on the picture, not below it"


@pytest.mark.parametrize("size", [(64, 64), (128, 72), (640, 360), (1920, 1080)])
@pytest.mark.parametrize("prompt", ["x", "word " * 399 + "last", "w" * 2000, "a\n" * 20 + "b", "漢字 🎬 " * 50])
def test_the_whole_prompt_fits_into_the_picture(prompt, size):
    width, height = size
    letters, lines = preview.fit(prompt, width, height)
    assert "".join(lines).replace(" ", "") == prompt.replace(" ", "").replace("\n", "")
    if size != (64, 64) or len(prompt) < 300:
        assert max(map(len, lines)) * letters * preview.GLYPH_WIDTH <= width
        assert len(lines) * letters * preview.LINE_HEIGHT <= height
    if size[0] >= 640:
        assert letters >= 7, "readable"


TRAPS = [
    "100% sure %{localtime} %{pts} %",
    "it's \"quoted\" and 'quoted'\nsecond line\n\nfourth",
    "[in];movie=/etc/passwd[out],drawtext=textfile=/etc/passwd:x=0",
    "\\\\n \\: \\' back\\",
    "-y -i concat:a|b lavfi: subfile,,start,0,end,9,,:/etc/passwd",
    "漢字 🎬 \u202e right to left \u200b",
]


@pytest.mark.parametrize("prompt", TRAPS)
def test_traps_are_only_text(tmp_path, prompt):
    video, _rig = render(tmp_path / "run", prompt=prompt, seconds=1)
    assert len(pictures(video)) == 12
    written = (tmp_path / "run" / "prompt.txt").read_text()
    assert "".join(written.split()) == "".join(prompt.split())


class Recorder(Rig):
    """Records FFmpeg's arguments instead of running them."""

    def ffmpeg(self, args, **options):
        self.commands.append(args)


def test_no_text_changes_the_graph(tmp_path):
    """S02: 500 fuzzed texts; the arguments differ in numbers and colours only."""
    dice = random.Random(5)
    letters = ":,;[]'\\\n%{}=@|$`\"#()<>&*?~! abcмир漢"
    forms = set()
    for _ in range(500):
        prompt = "".join(dice.choice(letters) for _ in range(dice.randrange(1, 80))).strip() or "x"
        rig = Recorder(tmp_path / "run", validated(KIND, prompt=prompt, **SMALL))
        preview.render(rig, rig.params)
        command = " ".join(rig.commands[0])
        forms.add(re.sub("|".join(preview.PATTERNS), "P", re.sub(r"0x[0-9a-f]{6}|\d+", "N", command)))
    assert len(forms) == 1


def test_cancel_ends_it_at_once(tmp_path):
    rig = Rig(tmp_path / "run", validated(KIND, prompt="x", seconds=60, fps=60, width=1280, height=720))
    rig.abort_when = lambda rig: len(rig.fractions) > 2
    with pytest.raises(Abort):
        KIND.run(rig)
    assert rig.outputs == {}


@pytest.mark.parametrize("size", ["1x4000", "4000x1"])
def test_a_long_thin_picture_fills_the_video(tmp_path, size):
    command = [
        ffmpeg.bundled(),
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        f"color=red:s={size},format=rgb24",
        "-frames:v",
        "1",
    ]
    subprocess.run([*command, str(tmp_path / "thin.png")], check=True)
    render(tmp_path / "run", image=tmp_path / "thin.png", width=1080, height=1920)


def test_a_png_with_the_rest_of_an_older_one_behind_it(tmp_path, material):
    whole = material("still.png").read_bytes()
    for name, rest in (("old", whole[len(whole) // 2 :]), ("other", b"PK\x03\x04" + bytes(200))):
        (tmp_path / name).write_bytes(whole + rest)
        render(tmp_path / f"run-{name}", image=tmp_path / name)


def test_code_zero_with_too_few_pictures_is_refused(tmp_path, material):
    script = tmp_path / "ffmpeg"
    script.write_text(f"#!/bin/sh\ncp {material('plain.mp4')} preview.mp4\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    rig = Rig(tmp_path / "run", validated(KIND, prompt="x", **SMALL | {"seconds": 4}), binary=str(script))
    with pytest.raises(JobError, match="25 pictures of 128x72 instead of 48") as raised:
        KIND.run(rig)
    assert raised.value.code is ErrorCode.ffmpeg_error
    assert rig.outputs == {}


@pytest.mark.parametrize("name", ["huge.png", "plain.mp4", "text"])
def test_what_is_no_picture_is_refused(tmp_path, material, name):
    text = tmp_path / "text"
    text.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    with pytest.raises(JobError) as raised:
        render(tmp_path / "run", image=text if name == "text" else material(name))
    assert raised.value.code is ErrorCode.bad_input
    assert raised.value.message.startswith("image ")


def test_an_unknown_engine_is_named(settings, tmp_path):
    settings.JOBSITE = settings.JOBSITE | {"RENDER_ENGINE": "warp"}
    with pytest.raises(JobError, match="warp") as raised:
        render(tmp_path / "run")
    assert raised.value.code is ErrorCode.config_error
