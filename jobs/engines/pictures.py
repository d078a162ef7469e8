"""Still pictures: opened by the one loader that their bytes ask for, judged by their header before a pixel is decoded.

Only for children behind the walls: libvips decodes here. It refuses no bomb by itself, and given only a name it would
guess among SVG, PDF and others; so the size is asked first, and the loader is named.
"""

import os
import struct
from pathlib import Path

LOADERS = {"image/jpeg": "jpegload", "image/png": "pngload", "image/webp": "webpload", "image/tiff": "tiffload"}
MAX_PIXELS = 8192 * 8192  # of one picture
MAX_CHUNKS = 10_000  # of a PNG, before its first pixels
SEVERAL = "is animated or has several pages; only single pictures are taken"


class Unfit(Exception):
    """The file breaks a cap or cannot be read; the text goes after the file's label."""


def vips():
    """The pyvips module, with few threads (each takes address space, which is limited) and no temporary files."""
    os.environ.setdefault("VIPS_CONCURRENCY", str(min(4, os.cpu_count() or 1)))
    os.environ.setdefault("VIPS_DISC_THRESHOLD", "8g")
    import pyvips

    pyvips.cache_set_max(0)  # every picture is read once
    return pyvips


def opened(path: str, content_type: str, *, whole: bool = False):
    """The picture as a pyvips.Image that is read from top to bottom once, or held `whole` in memory.

    Nothing is decoded yet; a damaged or cut file is a pyvips.Error when its pixels are asked for. Raises Unfit for more
    than MAX_PIXELS and for what holds more than one picture.
    """
    pyvips = vips()
    loader = getattr(pyvips.Image, LOADERS[content_type])
    try:
        image = loader(path, access="random" if whole else "sequential", fail_on="error")
    except pyvips.Error as wrong:
        raise Unfit("cannot be read: it is damaged or cut") from wrong
    if image.width * image.height > MAX_PIXELS:
        raise Unfit(f"has {image.width}x{image.height} pixels; more than {MAX_PIXELS} pixels are not allowed")
    if (image.get_typeof("n-pages") and image.get("n-pages") > 1) or (loader_is_png(content_type) and is_apng(path)):
        raise Unfit(SEVERAL)
    return image


def check(path: str, content_type: str) -> tuple[int, int]:
    """Width and height of a picture that decodes whole. Raises Unfit."""
    image = opened(path, content_type)
    try:
        image.avg()
    except vips().Error as wrong:
        raise Unfit("cannot be read: it is damaged or cut") from wrong
    return image.width, image.height


def loader_is_png(content_type: str) -> bool:
    return LOADERS[content_type] == "pngload"


def is_apng(path: str) -> bool:
    """Whether a PNG is animated: an acTL chunk stands before its first IDAT (PNG specification, third edition)."""
    with Path(path).open("rb") as file:
        file.seek(8)
        for _ in range(MAX_CHUNKS):
            head = file.read(8)
            if len(head) < 8 or head[4:] == b"IDAT":
                return False
            if head[4:] == b"acTL":
                return True
            file.seek(struct.unpack(">I", head[:4])[0] + 4, os.SEEK_CUR)
    raise Unfit("cannot be read: it has too many parts")
