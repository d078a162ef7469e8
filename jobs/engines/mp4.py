"""What an MP4's index says, read in milliseconds without decoding: every sample's place, size and time.

Follows ISO/IEC 14496-12 (boxes, 8.x) and 14496-15 (avcC, 5.3). It serves clips that are joined without re-encoding;
what it cannot describe exactly (fragments, several edits, encryption) is `Unsupported` and goes through FFmpeg instead.
"""

import os
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate, repeat
from operator import add
from pathlib import Path

MAX_INDEX_BYTES = 64 * 1024**2
MAX_SAMPLES = 6 * 3600 * 240


class Unsupported(Exception):
    """A well-formed file perhaps, but not one whose samples this module can move."""


class Cut(Exception):
    """The file ends before the data that its index promises, or has no index."""


@dataclass
class Track:
    """One track; sample arrays are in decode order, times in `1/timescale` seconds."""

    path: Path
    kind: str  # video or audio
    timescale: int
    codec: str  # the sample entry's four letters
    descriptions: int  # sample entries; one, but in films that were joined
    entry: bytes  # the first sample entry, without its writer's words
    config: bytes  # the decoder configuration inside it (avcC, hvcC, esds …)
    header: bytes  # tkhd's matrix, width and height: how a player turns and scales
    width: int
    height: int
    square: bool  # pixels are square
    sizes: array
    positions: array  # of each sample in the file
    deltas: array
    shifts: array | None  # presentation minus decode time
    sync: frozenset[int] | None  # numbers of the samples that decoding can start at; None: all
    media_time: int  # where presentation begins
    delay: Fraction  # seconds before it begins
    shown: Fraction | None  # seconds of the media that are presented; None: all
    channels: int = 0
    rate: int = 0

    @property
    def count(self) -> int:
        return len(self.sizes)

    @cached_property
    def length(self) -> int:
        """In ticks, all samples."""
        return sum(self.deltas)

    @property
    def seconds(self) -> Fraction:
        return Fraction(self.length, self.timescale)

    @property
    def end(self) -> Fraction:
        """Seconds from the clip's start to where presentation ends."""
        media = self.seconds if self.shifts else Fraction(self.length - self.media_time, self.timescale)
        return self.delay + (media if self.shown is None else min(media, self.shown))

    @cached_property
    def plain(self) -> bool:
        """Whether the pictures can be moved: all are shown, from the first one on, and of one known description."""
        if self.descriptions > 1 or not self.config:
            return False
        if self.shifts and max(max(self.shifts), -min(self.shifts)) > 10 * self.timescale:
            return False
        tick = Fraction(max(self.deltas), self.timescale)
        first = 0
        if self.shifts:
            at, first = 0, 1 << 62
            for number, delta in enumerate(self.deltas[:64]):  # reordering reaches at most 16 pictures
                first = min(first, at + self.shifts[number])
                at += delta
        starts = Fraction(abs(first - self.media_time), self.timescale) <= tick / 2
        return starts and (self.shown is None or self.shown > self.seconds - tick)

    @cached_property
    def fps(self) -> Fraction | None:
        """Pictures a second; None if their distances differ by more than a millisecond or so (variable frame rate)."""
        body = self.deltas[:-1] if self.count > 1 else self.deltas
        slack = max(1, self.timescale // 900)  # Matroska keeps whole milliseconds
        if min(body) == 0 or max(body) - min(body) > slack or abs(self.deltas[-1] - body[0]) > slack:
            return None
        return standard_fps(Fraction(self.timescale * len(body), sum(body)))

    @property
    def turned(self) -> bool:
        return self.header[:36] != IDENTITY


# What stays of a sample entry besides the decoder configuration: all else may be somebody's words, as the compressor's
# name and a `colr` box with a whole profile are.
TECHNICAL = (b"pasp", b"colr", b"btrt", b"fiel", b"clap", b"mdcv", b"clli", b"dvcC", b"dvvC")
IDENTITY = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


@dataclass
class Movie:
    video: Track | None
    audio: Track | None


def standard_fps(fps: Fraction) -> Fraction:
    """The usual rate (n or n × 1000/1001) within 0.02 % of `fps`, else `fps` itself with a small denominator."""
    whole = round(fps) or 1
    usual = (Fraction(n * factor) for n in (whole, whole + 1) for factor in (1, Fraction(1000, 1001)))
    near = [rate for rate in usual if abs(rate - fps) <= fps / 5000]
    return min(near, key=lambda rate: abs(rate - fps)) if near else fps.limit_denominator(1001)


def aac_lc(esds: bytes) -> bytes | None:
    """The decoder configuration's first two bytes (object, rate, channels) if it is AAC-LC of 1024 samples a packet.

    14496-1, 7.2.6 (descriptors) and 14496-3, 1.6.2.1 (AudioSpecificConfig).
    """
    at = 4
    for tag, skip in ((3, 3), (4, 13), (5, 0)):
        if at >= len(esds) or esds[at] != tag:
            return None
        at += 1
        while at < len(esds) and esds[at] & 0x80:
            at += 1
        at += 1 + skip
    config = esds[at : at + 2]
    plain = len(config) == 2 and config[0] >> 3 == 2 and not config[1] & 4
    return config if plain and (config[0] & 7) << 1 | config[1] >> 7 != 15 else None


def parameter_sets(avcc: bytes) -> bytes:
    """The SPS and PPS of an avcC, each with its 4-byte length, as they stand in a sample (14496-15, 5.3.3.1).

    IndexError if the avcC ends too early.
    """
    found, at, count = b"", 6, avcc[5] & 31
    for last in (False, True):
        for _ in range(count):
            size = int.from_bytes(avcc[at : at + 2], "big")
            found += size.to_bytes(4, "big") + avcc[at + 2 : at + 2 + size]
            at += 2 + size
        count, at = (0, at) if last else (avcc[at], at + 1)
    if at > len(avcc):
        raise IndexError
    return found


def read(path: Path) -> Movie:
    """The first video and audio track of an MP4 or MOV. Raises Unsupported or Cut; never reads a sample."""
    with open(path, "rb") as file:
        index = _index(file, os.fstat(file.fileno()).st_size)
    try:
        return _movie(index, path)
    except (struct.error, IndexError, KeyError, OverflowError, ZeroDivisionError) as wrong:
        raise Unsupported("the index is not well-formed") from wrong


def boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The boxes that fill `data`, as (name, content)."""
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        elif size == 0:
            size = len(data) - at
        if size < head or at + size > len(data):
            raise Unsupported("a box is larger than what it is in")
        yield name, data[at + head : at + size]
        at += size


def _index(file, length: int) -> memoryview:
    """The content of the moov box; raises Cut if the file ends before it. What lies behind it is no concern."""
    at, found = 0, None
    while at + 8 <= length:
        file.seek(at)
        head = file.read(16)
        size, name = struct.unpack_from(">I4s", head)
        skip = 8
        if size == 1 and len(head) == 16:
            size, skip = struct.unpack_from(">Q", head, 8)[0], 16
        elif size == 0:
            size = length - at
        if size < skip:
            raise Unsupported("a box has no size")
        if at + size > length and (found is None or name == b"moov"):
            raise Cut
        if name in (b"moof", b"sidx"):
            raise Unsupported("a fragmented file")
        if name == b"moov":
            if size > MAX_INDEX_BYTES:
                raise Unsupported("the index is too large")
            file.seek(at + skip)
            found = memoryview(file.read(size - skip))
        at += size
    if found is None:
        raise Cut
    return found


def _tree(data: memoryview) -> dict[bytes, memoryview]:
    """Direct children by name, the first of each."""
    children: dict[bytes, memoryview] = {}
    for name, content in boxes(data):
        children.setdefault(name, content)
    return children


def _movie(index: memoryview, path: Path) -> Movie:
    top = _tree(index)
    if b"mvex" in top:
        raise Unsupported("a fragmented file")
    wide = top[b"mvhd"][0] == 1
    timescale = struct.unpack_from(">I", top[b"mvhd"], 20 if wide else 12)[0]
    tracks: dict[str, Track] = {}
    file_size = path.stat().st_size
    traks = [content for name, content in boxes(index) if name == b"trak"]
    if len(traks) > 16:
        raise Unsupported("too many tracks")
    for content in traks:
        trak = _tree(content)
        media = _tree(trak[b"mdia"])
        kind = {b"vide": "video", b"soun": "audio"}.get(bytes(media[b"hdlr"][8:12]))
        if kind and kind not in tracks:
            tracks[kind] = _track(kind, trak, media, timescale, path, file_size)
    return Movie(tracks.get("video"), tracks.get("audio"))


def _track(kind: str, trak: dict, media: dict, movie_timescale: int, path: Path, file_size: int) -> Track:
    wide = media[b"mdhd"][0] == 1
    timescale = struct.unpack_from(">I", media[b"mdhd"], 20 if wide else 12)[0]
    table = _tree(_tree(media[b"minf"])[b"stbl"])
    descriptions, size = struct.unpack_from(">II", table[b"stsd"], 4)
    entry = bytes(table[b"stsd"][8 : 8 + size])
    sizes = _sizes(table[b"stsz"], file_size)
    positions = _positions(table, sizes)
    if max(map(add, positions, sizes), default=0) > file_size:
        raise Cut
    if sum(sizes) > file_size:
        raise Unsupported("samples overlap")  # else a small file could name any amount of data
    deltas = _runs(table[b"stts"], "I", len(sizes))
    shifts = _runs(table[b"ctts"], "i", len(sizes)) if b"ctts" in table else None
    sync = None
    if b"stss" in table:
        count = struct.unpack_from(">I", table[b"stss"], 4)[0]
        sync = frozenset(number - 1 for number in _numbers(table[b"stss"], 8, count, "I"))
    header = trak[b"tkhd"]
    matrix = 52 if header[0] == 1 else 40
    media_time, delay, shown = _edits(trak, movie_timescale)
    track = Track(
        path=path,
        kind=kind,
        timescale=timescale,
        codec=entry[4:8].decode("latin-1"),
        descriptions=descriptions,
        entry=entry,
        config=b"",
        header=bytes(header[matrix : matrix + 44]),
        width=0,
        height=0,
        square=True,
        sizes=sizes,
        positions=positions,
        deltas=deltas,
        shifts=shifts,
        sync=sync,
        media_time=media_time,
        delay=delay,
        shown=shown,
    )
    if not sizes or not timescale:
        raise Unsupported("an empty track")
    if sync and not 0 <= min(sync) <= max(sync) < len(sizes):
        raise IndexError
    _describe(track)
    return track


def _describe(track: Track) -> None:
    """Fill in what the sample entry says."""
    entry = memoryview(track.entry)
    if track.kind == "video":
        track.width, track.height = struct.unpack_from(">HH", entry, 32)
        inner = _tree(entry[86:])
        if b"pasp" in inner:
            across, down = struct.unpack_from(">II", inner[b"pasp"])
            track.square = across == down
        names, fixed = [b"avcC", b"hvcC", b"av1C", b"vpcC"], entry[8:50].tobytes() + bytes(32) + entry[82:86].tobytes()
    else:
        if struct.unpack_from(">H", entry, 16)[0] != 0:
            raise Unsupported("a QuickTime sound description")
        track.channels, track.rate = struct.unpack_from(">H", entry, 24)[0], struct.unpack_from(">H", entry, 32)[0]
        inner = _tree(entry[36:])
        names, fixed = [b"esds"], entry[8:36].tobytes()
    track.config = next((bytes(inner[name]) for name in names if name in inner), b"")
    if b"avcC" in inner:
        parameter_sets(track.config)  # IndexError now, not while a film is written
    kept = [(name, inner[name]) for name in (*names, *TECHNICAL) if name in inner]
    told = [(name, content) for name, content in kept if name != b"colr" or content[:4] in (b"nclx", b"nclc")]
    children = b"".join(struct.pack(">I4s", 8 + len(content), name) + content for name, content in told)
    track.entry = struct.pack(">I4s", 8 + len(fixed + children), track.entry[4:8]) + fixed + children


def _numbers(data: memoryview, at: int, count: int, code: str) -> array:
    """`count` big-endian numbers from `at` on; IndexError if the table ends before them."""
    numbers = array(code)
    end = at + count * numbers.itemsize
    if count > MAX_SAMPLES or end > len(data):
        raise IndexError
    numbers.frombytes(data[at:end])
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _runs(table: memoryview, code: str, total: int) -> array:
    """A run-length table (stts, ctts) spread out to one value per sample."""
    count = struct.unpack_from(">I", table, 4)[0]
    pairs = _numbers(table, 8, 2 * count, code)
    values = array(code)
    for times, value in zip(pairs[::2], pairs[1::2], strict=True):
        if times < 0 or len(values) + times > total:
            raise IndexError
        values.append(value) if times == 1 else values.extend(repeat(value, times))
    if len(values) != total:
        raise IndexError
    return values


def _sizes(stsz: memoryview, file_size: int) -> array:
    size, count = struct.unpack_from(">II", stsz, 4)
    if count > MAX_SAMPLES:
        raise Unsupported("too many samples")
    if size and size * count > file_size:
        raise Cut
    return array("I", [size]) * count if size else _numbers(stsz, 12, count, "I")


def _positions(table: dict[bytes, memoryview], sizes: array) -> array:
    """Where each sample lies in the file: chunks (stco, co64) and how many samples each holds (stsc)."""
    name, code = (b"co64", "Q") if b"co64" in table else (b"stco", "I")
    chunks = _numbers(table[name], 8, struct.unpack_from(">I", table[name], 4)[0], code)
    runs = _numbers(table[b"stsc"], 8, 3 * struct.unpack_from(">I", table[b"stsc"], 4)[0], "I")
    firsts = [*runs[::3], len(chunks) + 1]
    positions = array("Q")
    sample = 0
    for number, per_chunk in enumerate(runs[1::3]):
        for chunk in range(firsts[number] - 1, min(firsts[number + 1] - 1, len(chunks))):
            held = sizes[sample : sample + per_chunk]
            positions.extend(accumulate(held[:-1], initial=chunks[chunk]) if held else ())
            sample += per_chunk
    if len(positions) != len(sizes):
        raise IndexError
    return positions


def _edits(trak: dict[bytes, memoryview], timescale: int) -> tuple[int, Fraction, Fraction | None]:
    """Where in the media presentation starts, seconds of delay before it, seconds shown (None: all).

    One edit and one delay are understood, all else is Unsupported.
    """
    if b"edts" not in trak:
        return 0, Fraction(0), None
    elst = _tree(trak[b"edts"])[b"elst"]
    count = struct.unpack_from(">I", elst, 4)[0]
    form = struct.Struct(">Qqhh" if elst[0] == 1 else ">Iihh")
    edits = [form.unpack_from(elst, 8 + number * form.size) for number in range(min(count, 3))]
    delay = Fraction(0)
    if edits and edits[0][1] == -1:
        delay = Fraction(edits.pop(0)[0], timescale)
    if len(edits) > 1 or any(rate != 1 or part for _length, _time, rate, part in edits):
        raise Unsupported("several edits")
    if not edits:
        return 0, delay, None
    return edits[0][1], delay, Fraction(edits[0][0], timescale) or None
