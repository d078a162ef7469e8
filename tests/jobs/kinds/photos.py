"""Pictures for tests, made by libvips, which is quick enough to make them when they are asked for."""

import logging
import random
import struct
import zlib
from pathlib import Path

import pyvips

logging.getLogger("pyvips").setLevel(logging.WARNING)  # it tells each step


def plain(width: int, height: int, colour: list[int]) -> pyvips.Image:
    """One RGB colour."""
    return (pyvips.Image.black(width, height) + colour).cast("uchar").copy(interpretation="srgb")


def drawn(width: int = 96, height: int = 64, seed: int = 1) -> pyvips.Image:
    """A colourful RGB picture with soft shades, edges and lines."""
    dice = random.Random(seed)
    shades = pyvips.Image.perlin(width, height, cell_size=max(8, width // 6), seed=seed) * 80 + 120
    cells = pyvips.Image.worley(width, height, cell_size=max(8, width // 9), seed=seed) * 2 + 40
    across = pyvips.Image.xyz(width, height)[0] * (255 / width)
    image = shades.bandjoin([cells, across]).cast("uchar").copy(interpretation="srgb").copy_memory()
    for _ in range(30):
        colour = [dice.randrange(256) for _ in range(3)]
        at = dice.randrange(width), dice.randrange(height)
        image = image.draw_circle(colour, *at, dice.randrange(2, max(3, width // 16)), fill=True)
        image = image.draw_line(colour, *at, dice.randrange(width), dice.randrange(height))
    return image


def degraded(image: pyvips.Image, *, shrink: float, blur: float, noise: float, seed: int = 7) -> pyvips.Image:
    """What a poor camera makes of it: smaller, blurred, with Gaussian noise in each band (standard deviation)."""
    small = image.resize(1 / shrink, kernel="lanczos3").cast("float")
    small = small.gaussblur(blur, precision="float") if blur else small
    grain = [
        pyvips.Image.gaussnoise(small.width, small.height, sigma=noise, mean=0, seed=seed + band)
        for band in range(small.bands)
    ]
    return (small + grain[0].bandjoin(grain[1:])).rint().cast("uchar").copy(interpretation="srgb").copy_memory()


def ssim(one: pyvips.Image, other: pyvips.Image) -> float:
    """Structural similarity of two pictures' brightness, -1.0 to 1.0 (Wang et al., 2004: Gaussian window of 1.5)."""

    def mean(image):
        return image.gaussblur(1.5, precision="float", min_ampl=0.01)

    a, b = (image.colourspace("b-w")[0].cast("float") for image in (one, other))
    mean_a, mean_b = mean(a), mean(b)
    spread = mean(a * a) - mean_a * mean_a + mean(b * b) - mean_b * mean_b
    together = mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * together + c2)
    return (likeness / ((mean_a * mean_a + mean_b * mean_b + c1) * (spread + c2))).avg()


def png(width: int, height: int, *, chunks: bytes = b"", pixels: bytes = b"") -> bytes:
    """A PNG of 1 bit grey that says to be of that size; it may lie, or have further chunks."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunks + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def frames(count: int, width: int, height: int) -> pyvips.Image:
    """`count` different pictures one below the other, which WebP and TIFF save as frames or pages."""
    image = pyvips.Image.gaussnoise(width, height * count, sigma=60, mean=128, seed=1).cast("uchar").copy()
    image.set_type(pyvips.GValue.gint_type, "page-height", height)
    return image


def apng() -> bytes:
    """8 x 8 pixels, which say to be two frames."""
    return png(8, 8, chunks=chunk(b"acTL", struct.pack(">II", 2, 0)), pixels=b"\0\0" * 8)


def write(image: pyvips.Image, path: Path, **options) -> Path:
    """Save with libvips by the name's ending."""
    image.write_to_file(str(path), **options)
    return path
