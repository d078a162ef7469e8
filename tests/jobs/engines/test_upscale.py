"""The picture engine: how good it is, what it keeps, what it refuses, and a network in place of resampling."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy
import onnx
import pytest
import pyvips

from jobs.engines import ffmpeg, media, pictures, process, tool, upscale
from jobs.errors import ErrorCode, JobError
from tests.jobs.kinds import photos

TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "tif": "image/tiff"}


def enhance(path, tmp_path, *, as_ending=None, in_child=False, **more):
    """The finished picture; made in this process unless `in_child`."""
    kind = path.suffix[1:]
    into = tmp_path / f"made.{as_ending or kind}"
    task = {
        "path": str(path),
        "content_type": TYPES[kind],
        "label": "image",
        "into": str(into),
        "as_type": TYPES[as_ending or kind],
        "side": 256,
        "quality": 90,
        "denoise": 0.5,
        "sharpen": 0.25,
        "model": "",
    } | more
    if in_child:
        said = tool.run("jobs.engines.upscale", task, cwd=tmp_path, limits=process.Limits(seconds=60))
    else:
        said = upscale.work(task, lambda fraction: None)
    made = pyvips.Image.new_from_file(str(into))
    assert (said["width"], said["height"]) == (made.width, made.height)
    assert media.sniff(into) == task["as_type"]
    return made


def lanczos(path, width, height, tmp_path):
    """The reference: FFmpeg's plain Lanczos."""
    into = tmp_path / "lanczos.png"
    scale = f"scale={width}:{height}:flags=lanczos+accurate_rnd+full_chroma_int"
    source = ffmpeg.source(path, media.sniff(path))
    subprocess.run([ffmpeg.bundled(), "-v", "error", "-y", *source, "-vf", scale, str(into)], check=True)
    return pyvips.Image.new_from_file(str(into))


@pytest.mark.parametrize(
    ("shrink", "noise", "blur", "better"),
    [
        (4, 4, 0.7, 0.002),
        (2, 8, 0.7, 0.02),
        (4, 16, 0.8, 0.1),
        (2, 0, 1.0, -0.005),
        (2, 0, 0, -0.005),
        (4, 0, 0, -0.005),
    ],
)
def test_nearer_to_the_truth_than_lanczos_where_there_is_noise(tmp_path, shrink, noise, blur, better):
    """SSIM with the original of what is made of its degraded copy; without noise it is about the same."""
    gains = []
    for seed in (1, 2):
        truth = photos.drawn(256, 192, seed)
        poor = photos.write(photos.degraded(truth, shrink=shrink, blur=blur, noise=noise), tmp_path / "poor.png")
        ours = photos.ssim(truth, enhance(poor, tmp_path))
        gains.append(ours - photos.ssim(truth, lanczos(poor, 256, 192, tmp_path)))
    assert min(gains) > better, gains


def test_noise_is_measured_and_none_is_seen_in_a_drawing():
    flat = photos.plain(200, 200, [90, 130, 160])
    for wanted in (2.0, 6.0, 15.0):
        noisy = photos.degraded(flat, shrink=1, blur=0, noise=wanted)
        assert upscale.noise(noisy) == pytest.approx(wanted, rel=0.15)
    assert upscale.noise(flat) == 0.0


@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 97), (700, 333), (256, 256), (1, 300), (300, 1), (1, 1)])
def test_the_longer_side_is_exact_whatever_comes(tmp_path, width, height):
    image = pyvips.Image.perlin(width, height, cell_size=8).cast("uchar").copy(interpretation="b-w")
    made = enhance(photos.write(image, tmp_path / "in.png"), tmp_path)
    assert (made.width, made.height) == upscale.fitted(width, height, 256)
    assert max(made.width, made.height) == 256


@pytest.mark.parametrize(
    ("ending", "as_ending"), [("png", "png"), ("webp", "webp"), ("tif", "tif"), ("png", "jpg"), ("webp", "png")]
)
def test_alpha_is_kept_and_its_edge_has_no_halo(tmp_path, ending, as_ending):
    cover = pyvips.Image.black(96, 64).draw_circle(255, 48, 32, 20, fill=True)
    image = photos.plain(96, 64, [180, 90, 40]).bandjoin(cover)
    options = {"lossless": True} if ending == "webp" else {}
    made = enhance(photos.write(image, tmp_path / f"in.{ending}", **options), tmp_path, as_ending=as_ending)
    assert made.hasalpha() == (as_ending != "jpg")
    if as_ending == "jpg":
        assert made(2, 2) == pytest.approx([255, 255, 255], abs=2)
        assert made(128, 85) == pytest.approx([180, 90, 40], abs=4)
    else:
        assert (made(2, 2)[3], made(128, 85)[3]) == (0, 255)
        for x in range(78, 130, 4):  # from outside of the edge to the middle
            red, green, blue, alpha = made(x, 85)
            assert alpha < 250 or (red, green, blue) == pytest.approx((180, 90, 40), abs=9), x


@pytest.mark.parametrize("ending", TYPES)
def test_the_orientation_is_applied_and_no_metadata_but_the_profile_is_left(tmp_path, ending):
    image = photos.drawn(96, 64).icc_transform("p3", input_profile="srgb").copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    image.set_type(pyvips.GValue.gstr_type, "exif-ifd0-Artist", "Ann at home (Ann at home, ASCII, 12 components)")
    image.set_type(pyvips.GValue.blob_type, "xmp-data", b"<x:xmpmeta>Ann at home</x:xmpmeta>")
    path = photos.write(image, tmp_path / f"in.{ending}")
    assert b"Ann at home" in path.read_bytes()
    made = enhance(path, tmp_path)
    assert (made.width, made.height) == (171, 256)
    kept = {name for name in made.get_fields() if name.startswith(("exif", "xmp", "iptc", "icc"))}
    assert kept == {"icc-profile-data"}
    assert made.get("icc-profile-data") == image.get("icc-profile-data")
    assert not made.get_typeof("orientation") or made.get("orientation") == 1
    assert b"Ann at home" not in (tmp_path / f"made.{ending}").read_bytes()


@pytest.mark.parametrize("ending", ["jpg", "tif"])
@pytest.mark.parametrize("profile", [True, False])
def test_cmyk_becomes_srgb(tmp_path, ending, profile):
    colours = photos.plain(64, 48, [200, 120, 60])
    path = photos.write(
        colours.icc_transform("cmyk", input_profile="srgb"),
        tmp_path / f"in.{ending}",
        keep="icc" if profile else "none",
    )
    made = enhance(path, tmp_path)
    assert (made.interpretation, made.bands) == ("srgb", 3)
    assert made(128, 96) == pytest.approx([200, 120, 60], abs=12)


@pytest.mark.parametrize(
    ("ending", "as_ending", "format"), [("png", "png", "ushort"), ("tif", "tif", "ushort"), ("png", "jpg", "uchar")]
)
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_16_bits_are_kept_where_the_format_holds_them(tmp_path, ending, as_ending, format, bands):
    space = "grey16" if bands < 3 else "rgb16"
    image = (pyvips.Image.black(64, 48) + [50_000, 30_000, 10_000, 65_535][-bands:]).cast("ushort")
    made = enhance(
        photos.write(image.copy(interpretation=space), tmp_path / f"in.{ending}"), tmp_path, as_ending=as_ending
    )
    assert made.format == format
    if format == "ushort":
        assert made(100, 90) == pytest.approx([50_000, 30_000, 10_000, 65_535][-bands:], abs=2)


def test_the_same_gives_the_same_bytes(tmp_path):
    path = photos.write(photos.drawn(), tmp_path / "in.jpg")
    digests = set()
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        enhance(Path(shutil.copy(path, tmp_path / str(number))), tmp_path / str(number), side=700, in_child=True)
        digests.add(hashlib.sha256((tmp_path / str(number) / "made.jpg").read_bytes()).hexdigest())
    assert len(digests) == 1


def bomb(tmp_path):
    """60,000 x 60,000 pixels in 70 bytes."""
    path = tmp_path / "bomb.png"
    path.write_bytes(photos.png(60_000, 60_000))
    return path


def jpeg_bomb(tmp_path):
    """A JPEG whose frame header says 60,000 x 60,000."""
    path = photos.write(photos.drawn(), tmp_path / "bomb.jpg")
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = (60_000).to_bytes(2, "big") * 2
    path.write_bytes(content)
    return path


def cut(ending, share):
    def make(tmp_path):
        path = photos.write(photos.drawn(300, 200), tmp_path / f"cut.{ending}")
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        return path

    return make


def strip(ending):
    def make(tmp_path):
        return photos.write(photos.frames(2, 96, 64), tmp_path / f"two.{ending}")

    return make


def apng(tmp_path):
    path = tmp_path / "moving.png"
    path.write_bytes(photos.apng())
    return path


def scattered(tmp_path):
    path = tmp_path / "in.png"
    path.write_bytes(photos.png(8, 8, chunks=photos.chunk(b"tEXt", b"a\0b") * 20_000, pixels=b"\0\0" * 8))
    return path


def lying(tmp_path):
    path = photos.write(photos.drawn(), tmp_path / "in.png")
    return path.rename(tmp_path / "lying.jpg")


def six_bands(tmp_path):
    return photos.write(photos.drawn().bandjoin(photos.drawn()), tmp_path / "six.tif")


REFUSED = {
    "bomb": (bomb, "60000x60000 pixels"),
    "jpeg bomb": (jpeg_bomb, "60000x60000 pixels"),
    "animated png": (apng, "animated"),
    "animated webp": (strip("webp"), "animated"),
    "png of 20,000 chunks": (scattered, "too many parts"),
    "pages": (strip("tif"), "several pages"),
    "lying": (lying, "damaged"),
    **{f"{share:.0%} of a {ending}": (cut(ending, share), "damaged") for ending in TYPES for share in (0.1, 0.5, 0.95)},
}


@pytest.mark.parametrize("name", [*REFUSED, "six bands"])
def test_what_is_no_single_whole_picture_is_refused_with_a_reason(tmp_path, name):
    make, reason = REFUSED.get(name, (six_bands, "more than four"))
    with pytest.raises(JobError, match=reason) as raised:
        enhance(make(tmp_path), tmp_path)
    assert raised.value.code is ErrorCode.bad_input
    assert raised.value.message.startswith("image ")
    assert str(tmp_path) not in raised.value.message


@pytest.mark.parametrize("name", sorted(REFUSED.keys() - {"lying"}))
def test_the_probe_at_upload_sees_it_too(tmp_path, name):
    """`media.inspect` is what the upload's child does; the upload itself is tried in test_enhance.py."""
    make, reason = REFUSED[name]
    path = make(tmp_path)
    with pytest.raises(media.Unfit, match=reason):
        media.inspect(str(path), media.sniff(path))


def test_too_little_memory_is_said(tmp_path):
    grainy = photos.degraded(photos.drawn(100, 100), shrink=1, blur=0, noise=8).replicate(30, 30)
    path = photos.write(grainy, tmp_path / "in.jpg")
    task = {"path": str(path), "content_type": "image/jpeg", "label": "image", "into": "o.jpg", "as_type": "image/jpeg"}
    task |= {"side": 3000, "quality": 90, "denoise": 1.0, "sharpen": 1.0, "model": ""}
    with pytest.raises(JobError) as raised:
        tool.run("jobs.engines.upscale", task, cwd=tmp_path, limits=process.Limits(memory_bytes=300 * 1024**2))
    assert raised.value.code is ErrorCode.out_of_memory


# --- a network ------------------------------------------------------------------------------------------------------


def network(path, *, factor=2, channels=3, side=None, kind=onnx.TensorProto.FLOAT, gain=1.0):
    """An ONNX file that repeats each pixel `factor` times, times `gain`; `side` fixes its input's height and width."""
    dim = side or "n"
    wide = side * factor if side else "m"
    scales = onnx.numpy_helper.from_array(numpy.array([1, 1, factor, factor], numpy.float32), "scales")
    by = onnx.numpy_helper.from_array(numpy.array(gain, onnx.helper.tensor_dtype_to_np_dtype(kind)), "gain")
    nodes = [
        onnx.helper.make_node("Resize", ["in", "", "scales"], ["large"], mode="nearest"),
        onnx.helper.make_node("Mul", ["large", "gain"], ["out"]),
    ]
    takes = onnx.helper.make_tensor_value_info("in", kind, ["b", channels, dim, dim])
    gives = onnx.helper.make_tensor_value_info("out", kind, ["b", channels, wide, wide])
    graph = onnx.helper.make_graph(nodes, "repeats", [takes], [gives], [scales, by])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(path))
    return str(path)


@pytest.mark.parametrize(
    ("bands", "options"),
    [
        (3, {}),
        (1, {}),
        (3, {"factor": 4}),
        (3, {"channels": 1}),
        (1, {"side": 64, "channels": 1}),
        (3, {"side": 64}),
        (3, {"kind": onnx.TensorProto.FLOAT16}),
    ],
)
def test_a_network_draws_tile_by_tile_without_seams(tmp_path, bands, options):
    image = photos.drawn(300, 200)
    image = image[0].copy(interpretation="b-w") if bands == 1 else image
    model = network(tmp_path / "model.onnx", **options)
    side = 300 * options.get("factor", 2)
    made = enhance(photos.write(image, tmp_path / "in.png"), tmp_path, side=side, denoise=0, sharpen=0, model=model)
    repeated = image.zoom(options.get("factor", 2), options.get("factor", 2))
    assert (made - repeated).abs().max() <= 1


def test_a_network_is_asked_again_until_the_size_is_reached_and_keeps_alpha(tmp_path):
    image = photos.drawn(96, 64).bandjoin(pyvips.Image.black(96, 64) + 255).cast("uchar")
    path = photos.write(image.copy(interpretation="srgb"), tmp_path / "in.png")
    model = network(tmp_path / "model.onnx")
    made = enhance(path, tmp_path, side=500, denoise=0, sharpen=0, model=model)
    assert (made.width, made.height, made.bands) == (500, 333, 4)
    assert made[3].min() == 255
    assert photos.ssim(made[0:3], image[0:3].zoom(8, 8).resize(500 / 768, vscale=333 / 512)) > 0.98


def test_a_network_runs_in_the_child_within_its_memory(tmp_path):
    path = photos.write(photos.drawn(), tmp_path / "in.jpg")
    made = enhance(path, tmp_path, model=network(tmp_path / "model.onnx"), in_child=True)
    assert (made.width, made.height) == (256, 171)


@pytest.mark.parametrize("name", ["text", "five channels", "smaller", "tiny"])
def test_a_model_that_does_not_fit_is_the_operators_error(tmp_path, name):
    model = tmp_path / "model.onnx"
    options = {"five channels": {"channels": 5}, "smaller": {"factor": 1}, "tiny": {"side": 16}}
    network(model, **options[name]) if name in options else model.write_text("no model")
    with pytest.raises(JobError, match="does not fit") as raised:
        enhance(photos.write(photos.drawn(), tmp_path / "in.png"), tmp_path, model=str(model))
    assert raised.value.code is ErrorCode.config_error


def test_no_other_loader_than_ours_is_ever_asked(tmp_path):
    """What libvips could read by guessing (SVG here) is nothing to us, whatever its name."""
    path = tmp_path / "in.png"
    path.write_text("<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><rect width='9' height='9'/></svg>")
    assert pyvips.Image.new_from_file(str(path)).width == 9, "libvips alone would take it"
    with pytest.raises(pictures.Unfit):
        pictures.check(str(path), "image/png")
    assert media.sniff(path) is None
