"""A picture brought to a size: denoised, resampled, sharpened; by libvips, or with a model that the operator names.

Run as `python -m jobs.engines.upscale` by `jobs.engines.tool`, in a child behind the walls: see `work` for its task.

The noise is measured as the median of what a Laplacian leaves (after Immerkær, "Fast noise variance estimation", 1996),
taken away by a self-guided filter (He, Sun, Tang, "Guided image filtering", 2010), and what is sharpened is only what
stands above it. So noisy pictures come out nearer to the truth than by Lanczos, and clean ones about the same
(measured in `tests/jobs/engines/test_upscale.py`).
"""

from typing import Any

from jobs.engines import pictures, tool
from jobs.errors import ErrorCode, JobError

RADIUS = 2  # pixels around each that the denoising looks at
DENOISE = 5.0  # contrast below so many times the noise is smoothed away, at denoise 1.0
SHARPEN = 2.0  # how often the detail is added, at sharpen 1.0
PROFILE_BYTES = 4 * 1024**2  # a larger colour profile is not passed on
SMALL, DRAWN = 0.4, 0.9  # progress when the picture is decoded and no larger than asked; when a model has enlarged it
SAVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "image/jpeg": ("jpegsave", {"optimize_coding": True}),
    "image/png": ("pngsave", {"compression": 3}),
    "image/webp": ("webpsave", {"effort": 2}),
    "image/tiff": ("tiffsave", {"compression": "deflate", "predictor": "horizontal"}),
}


def work(task: dict[str, Any], progress: tool.Progress) -> dict[str, Any]:
    """Make the picture; {"width": …, "height": …} of it.

    The task: `path` and `content_type` of the source, `label` for messages, `into` (a name in the work folder) and
    `as_type`, `side` (pixels of the longer side), `quality` (1 to 100, for JPEG and WebP), `denoise` and `sharpen` (0.0
    to 1.0), `model` (path of an ONNX file, or empty). Raises JobError: bad_input, storage_error, config_error.
    """
    pyvips = pictures.vips()
    try:
        image = upright(task["path"], task["content_type"])
        made = enhance(image, task, progress)
        save(made, task, progress)
        progress(1.0)
    except pictures.Unfit as unfit:
        raise JobError(ErrorCode.bad_input, f"{task['label']} {unfit}.") from unfit
    except pyvips.Error as wrong:
        raise failure(str(wrong), task["label"]) from wrong
    return {"width": made.width, "height": made.height}


def failure(said: str, label: str) -> JobError:
    """What libvips's words mean to the user."""
    if "No space left" in said or "File too large" in said:
        return JobError(ErrorCode.storage_error, "The disk is full, or the picture is larger than one file may be.")
    if "out of memory" in said or "unable to allocate" in said:
        return JobError(ErrorCode.out_of_memory)
    return JobError(ErrorCode.bad_input, f"{label} cannot be read: it is damaged or cut.")


def upright(path: str, content_type: str):
    """The picture turned as its EXIF orientation says, in 1 or 3 colour bands and perhaps alpha, of 8 or 16 bits.

    Grey and RGB keep their numbers and their profile; CMYK and other colour spaces become sRGB.
    """
    image = pictures.opened(path, content_type)
    if image.get_typeof("orientation") and image.get("orientation") > 1:
        image = pictures.opened(path, content_type, whole=True).autorot()
    if image.interpretation == "cmyk":
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk")
    elif image.interpretation not in ("srgb", "rgb", "b-w", "rgb16", "grey16"):
        if image.interpretation in ("multiband", "matrix", "fourier", "histogram"):
            raise pictures.Unfit("has colours of an unknown kind")
        image = without_profile(image.colourspace("srgb"))
    if image.format not in ("uchar", "ushort") or image.bands > 4:
        raise pictures.Unfit("has neither 8 nor 16 bits a colour, or more than four of them")
    return image


def without_profile(image):
    """A copy that names no colour profile."""
    image = image.copy()
    if image.get_typeof("icc-profile-data"):
        image.remove("icc-profile-data")
    return image


def enhance(image, task: dict[str, Any], progress: tool.Progress):
    """The picture with its longer side at `side`, as numbers of its own format."""
    most = 65535.0 if image.format == "ushort" else 255.0
    size = fitted(image.width, image.height, task["side"])
    has_alpha = image.hasalpha()
    small = image.premultiply(max_alpha=most) if has_alpha else image
    if size[0] < image.width or size[1] < image.height:
        small = resize(small, size)
    small = small.rint().cast(image.format) if has_alpha else small
    small = on_the_way(small, progress, 0.0, SMALL).copy_memory()
    alpha = small[small.bands - 1] if has_alpha else None
    colours = small[0 : small.bands - 1] if has_alpha else small
    grain = noise(colours)
    colours = denoise(colours, DENOISE * task["denoise"] * grain)
    if task["model"]:
        from jobs.engines import superres

        colours = superres.enlarge(
            colours, max(size), most, task["model"], lambda done: progress(SMALL + (DRAWN - SMALL) * done)
        )
    larger = size[0] / small.width
    cover = resize(alpha, size).cast("float") if has_alpha else None
    made = sharpen(resize(colours, size), cover, SHARPEN * task["sharpen"], 0.8 * max(1.0, larger), 2 * grain)
    if has_alpha:
        made = made.bandjoin(cover).copy(interpretation=image.interpretation)
        made = made.unpremultiply(max_alpha=most, alpha_band=made.bands - 1)
    return made.rint().cast(image.format).copy(interpretation=image.interpretation)


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """The size whose longer side is `side`; the shorter one is never nothing."""
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize(image, size: tuple[int, int]):
    """Reduced by Lanczos, enlarged by Catmull-Rom splines, pixel centres in step."""
    if size == (image.width, image.height):
        return image
    across, down = size[0] / image.width, size[1] / image.height
    if min(across, down) < 1:
        return image.resize(across, vscale=down, kernel="lanczos3")
    return image.affine(  # libvips's own resize enlarges with a shift of half a pixel, and has no Lanczos for it
        [across, 0, 0, down],
        interpolate=pictures.vips().Interpolate.new("bicubic"),
        oarea=[0, 0, *size],
        idx=0.5 - 0.5 / across,
        idy=0.5 - 0.5 / down,
        extend="copy",
    )


def noise(image) -> float:
    """The standard deviation of the picture's noise, in its own numbers, of a middle band; 0.0 for drawn pictures."""
    laplacian = vips_matrix([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    band = image[image.bands // 2].cast("float")
    fine = 64 if image.format == "uchar" else 1  # the median is taken of whole numbers up to 65535
    left = band.conv(laplacian, precision="float").abs() * fine
    return max(0, left.cast("ushort").percent(50) - 1) / fine / 0.6745 / 6


def vips_matrix(rows: list[list[int]], scale: float = 1.0):
    return pictures.vips().Image.new_from_array(rows, scale=scale)


def box(image):
    """The mean of each pixel's surroundings."""
    wide = 2 * RADIUS + 1
    return image.convsep(vips_matrix([[1] * wide], scale=wide), precision="float")


def denoise(image, threshold: float):
    """Smoothed where the contrast is below `threshold`, kept where it is above."""
    if threshold <= 0:
        return image
    image = image.cast("float").copy_memory()
    mean, square = box(image), box(image * image)
    spread = square - mean * mean
    spread = (spread > 0).ifthenelse(spread, 0)
    kept = (spread / (spread + threshold * threshold)).copy_memory()
    return (box(kept) * image + box(mean - kept * mean)).copy_memory()


def sharpen(image, cover, amount: float, sigma: float, floor: float):
    """Fine detail of the brightness added `amount` times, what is not above `floor` left alone.

    `cover` is the alpha that the picture was multiplied with, or None: where it ends is no detail of the picture.
    """
    if amount <= 0:
        return image
    bright = image.bandmean() if image.bands > 1 else image
    bright = bright.cast("float")
    around = bright.gaussblur(sigma, precision="float")
    if cover is not None:
        around = around * (cover / (cover.gaussblur(sigma, precision="float") + 1e-3))
    detail = bright - around
    if floor > 0:
        power = detail * detail
        detail = detail * (power / (power + floor * floor))
    return image + detail * amount


def save(image, task: dict[str, Any], progress: tool.Progress) -> None:
    """Write the picture, with its colour profile and no other metadata."""
    name, options = SAVERS[task["as_type"]]
    if task["as_type"] in ("image/jpeg", "image/webp"):
        options = options | {"Q": task["quality"]}
        if image.format == "ushort":
            image = (image >> 8).cast("uchar").copy(interpretation="b-w" if image.bands < 3 else "srgb")
    if task["as_type"] == "image/jpeg" and image.hasalpha():
        image = image.flatten(background=255)
    if image.get_typeof("icc-profile-data") and len(image.get("icc-profile-data")) > PROFILE_BYTES:
        image = without_profile(image)
    getattr(on_the_way(image, progress, DRAWN if task["model"] else SMALL, 1.0), name)(
        task["into"], keep="icc", **options
    )


def on_the_way(image, progress: tool.Progress, start: float, end: float):
    """The image; computing it tells progress from `start` to `end`, whole percents only."""
    told = -1

    def computed(_image, state) -> None:
        nonlocal told
        if state.percent > told:
            told = state.percent
            progress(start + (end - start) * min(100, told) / 100)

    image = image.copy()
    image.set_progress(True)
    image.signal_connect("eval", computed)
    return image


if __name__ == "__main__":
    tool.main(work)
