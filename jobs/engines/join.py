"""Clips of one format joined into one MP4 without decoding: samples are copied, one new index is written in front.

What `ffmpeg -f concat -c copy` does not give: pictures stay evenly spaced over the joints; sound is laid out anew,
packet after packet, within half a packet (11 ms) of its pictures at every joint; and H.264 clips of other encoder
settings keep their own parameter sets, both as a sample description (14496-12, 8.5.2) and in the band, since some
players read only one of the two.
"""

import os
import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from operator import add
from pathlib import Path
from typing import BinaryIO

from jobs.engines.mp4 import IDENTITY, Track, parameter_sets

AAC_SAMPLES = 1024  # in one packet of AAC-LC
PIECE = 1024**2  # bytes read at once


@dataclass
class _Chunk:
    """Half a second of a clip, written in one go; `starts` is where in the film, in seconds.

    FFmpeg takes samples less than a second apart in the order in which they lie: the film is read without a seek.
    """

    starts: float
    track: Track
    first: int
    last: int  # not included
    description: int  # number of the sample entry, from 1
    prefix: bytes  # goes before each sync sample


@dataclass
class _Table:
    """The film's samples of one kind, as they come to lie one after another."""

    timescale: int
    entries: list[bytes] = field(default_factory=list)
    sizes: array = field(default_factory=lambda: array("I"))
    deltas: list[int] = field(default_factory=list)
    shifts: list[int] = field(default_factory=list)
    sync: list[int] = field(default_factory=list)
    chunks: list[_Chunk] = field(default_factory=list)
    index: bytes = b""  # what the film's index says of the samples, all but the offsets
    offsets: list[int] = field(default_factory=list)  # of each chunk in the film
    media_time: int = 0
    delay: int = 0  # ticks of the film's timescale
    length: int = 0  # presented, ticks of the film's timescale


def join(
    videos: list[Track], audios: list[Track], out: Path, *, check: Callable[[int], None] = lambda written: None
) -> None:
    """Write `videos` one after another to `out`, with the sound of each from `audios`.

    `audios` may be empty (a silent film) or one track for the whole film. All videos must have one codec, size and
    pixel shape, all audios be AAC-LC of one rate and layout. A clip's sound is cut where its pictures end; where it is
    shorter, there is silence. `check` gets the bytes written so far after each chunk and may raise. The index comes
    first, so a browser plays the film while it loads.
    """
    pictures, starts = _pictures(videos)
    tables = [pictures]
    if audios:
        tables.append(_sound(audios, starts if len(audios) > 1 else [starts[0], starts[-1]], pictures))
    order = [(number, chunk) for number, table in enumerate(tables) for chunk in table.chunks]
    order.sort(key=lambda placed: placed[1].starts)  # sound and pictures of one second lie side by side
    for table in tables:
        table.index = _samples(table, video=table is pictures)
        table.offsets = [0] * len(table.chunks)
    top = _box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2avc1mp41")
    data_at = len(top) + len(_moov(tables, videos[0])) + 16  # offsets have a fixed width: the index keeps its length
    at = data_at
    placed = [0] * len(tables)
    for number, chunk in order:
        tables[number].offsets[placed[number]] = at
        placed[number] += 1
        at += _length(chunk)
    with open(out, "wb") as film:
        film.write(top + _moov(tables, videos[0]) + struct.pack(">I4sQ", 1, b"mdat", at - data_at + 16))
        _copy([chunk for _number, chunk in order], film, check)


def _pictures(videos: list[Track]) -> tuple[_Table, list[Fraction]]:
    """The film's video table, and where in seconds each clip starts, with the film's end as the last."""
    table = _Table(videos[0].timescale)
    scales = [Fraction(table.timescale, video.timescale) for video in videos]
    table.media_time = max(round(video.media_time * scale) for video, scale in zip(videos, scales, strict=True))
    known: dict[bytes, int] = {}
    ticks, starts = 0, []
    for video, scale in zip(videos, scales, strict=True):
        starts.append(Fraction(ticks, table.timescale))
        description = known.setdefault(video.config, len(known) + 1)
        if description > len(table.entries):
            table.entries.append(video.entry)
        prefix = parameter_sets(video.config) if description > 1 else b""
        sync = range(video.count) if video.sync is None else sorted(video.sync)
        before = len(table.sizes)
        table.sync += [before + number + 1 for number in sync]
        table.sizes += video.sizes
        for number in sync if prefix else ():
            table.sizes[before + number] += len(prefix)
        deltas = _scaled(video.deltas, scale)
        earlier = table.media_time - round(video.media_time * scale)
        table.deltas += deltas
        shifts = video.shifts or array("i", bytes(4 * video.count))
        table.shifts += [(shift if scale == 1 else round(shift * scale)) + earlier for shift in shifts]
        first, clock = 0, ticks
        for number, delta in enumerate(deltas):
            clock += delta
            if 2 * (clock - ticks) >= table.timescale or number == video.count - 1:
                table.chunks.append(_Chunk(ticks / table.timescale, video, first, number + 1, description, prefix))
                first, ticks = number + 1, clock
    table.length = ticks
    return table, [*starts, Fraction(ticks, table.timescale)]


def _scaled(deltas: array, scale: Fraction) -> list[int]:
    """Durations in another timescale, without drift."""
    if scale == 1:
        return list(deltas)
    scaled, exact, placed = [], Fraction(0), 0
    for delta in deltas:
        exact += delta * scale
        scaled.append(round(exact) - placed)
        placed += scaled[-1]
    return scaled


def _sound(audios: list[Track], starts: list[Fraction], pictures: _Table) -> _Table:
    """The film's audio table: packets without gaps, each clip's first one within half a packet of its true place."""
    rate = audios[0].timescale
    table = _Table(rate, entries=[audios[0].entry])
    begin: int | None = None
    clock = 0
    for audio, start, end in zip(audios, starts[:-1], starts[1:], strict=True):
        ideal = round(start * rate + audio.delay * rate) - audio.media_time
        stop, first = round(end * rate), None
        for number, delta in enumerate(audio.deltas):
            here, ideal = ideal, ideal + delta
            if here >= stop:
                break
            if begin is None:
                begin = clock = here
            if clock - here > AAC_SAMPLES // 2:  # what the previous clip's last packet already covers
                continue
            if here - clock > AAC_SAMPLES // 2:  # silence: the packet before lasts longer
                table.deltas[-1] += here - clock
                clock = here
            first = number if first is None else first
            table.sizes.append(audio.sizes[number])
            table.deltas.append(AAC_SAMPLES)
            clock += AAC_SAMPLES
            if 2 * (number - first) >= rate // AAC_SAMPLES:
                table.chunks.append(_Chunk((clock - AAC_SAMPLES) / rate, audio, first, number + 1, 1, b""))
                first = None
            last = number + 1
        if first is not None:
            table.chunks.append(_Chunk(clock / rate, audio, first, last, 1, b""))
    begin = begin or 0
    table.media_time = max(0, -begin)
    table.delay = max(0, round(Fraction(begin, rate) * pictures.timescale))
    table.length = min(pictures.length, round(Fraction(clock, rate) * pictures.timescale)) - table.delay
    return table


# --- samples -------------------------------------------------------------------------------------------------------


def _length(chunk: _Chunk) -> int:
    plain = sum(chunk.track.sizes[chunk.first : chunk.last])
    if not chunk.prefix:
        return plain
    return plain + len(chunk.prefix) * sum(_is_sync(chunk.track, n) for n in range(chunk.first, chunk.last))


def _is_sync(track: Track, number: int) -> bool:
    return track.sync is None or number in track.sync


def _copy(chunks: list[_Chunk], film: BinaryIO, check: Callable[[int], None]) -> None:
    files: dict[Path, BinaryIO] = {}
    written = 0
    try:
        for chunk in chunks:
            if chunk.track.path not in files:
                while len(files) >= 8:  # two hundred clips must not need two hundred open files
                    files.pop(next(iter(files))).close()
                files[chunk.track.path] = open(chunk.track.path, "rb", buffering=0)  # noqa: SIM115 (closed below)
            file = files[chunk.track.path]
            places, sizes = (
                numbers[chunk.first : chunk.last] for numbers in (chunk.track.positions, chunk.track.sizes)
            )
            begin, end = min(places), max(map(add, places, sizes))
            if end - begin <= PIECE and not chunk.prefix:  # what lies between is the other track's: one read is cheaper
                data = memoryview(_read(file, begin, end - begin))
                film.write(
                    b"".join([data[at - begin : at - begin + size] for at, size in zip(places, sizes, strict=True)])
                )
            else:
                for number, at, size in zip(range(chunk.first, chunk.last), places, sizes, strict=True):
                    film.write(chunk.prefix if _is_sync(chunk.track, number) else b"")
                    for piece in range(at, at + size, PIECE):
                        film.write(_read(file, piece, min(PIECE, at + size - piece)))
            written += sum(sizes)
            check(written)
    finally:
        for file in files.values():
            file.close()


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    """Exactly these bytes; EOFError if the file has become shorter."""
    data = os.pread(file.fileno(), size, at)
    if len(data) != size:
        raise EOFError(f"{file.name} became shorter while it was read")
    return data


# --- the index -----------------------------------------------------------------------------------------------------


def _box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), name) + body


def _full(name: bytes, version: int, flags: int, *content: bytes) -> bytes:
    return _box(name, struct.pack(">I", version << 24 | flags), *content)


def _moov(tables: list[_Table], first: Track) -> bytes:
    scale = tables[0].timescale
    mvhd = struct.pack(">QQIQIH10x", 0, 0, scale, tables[0].length, 0x10000, 0x100) + IDENTITY + bytes(24)
    traks = [_trak(number, table, scale, first) for number, table in enumerate(tables, 1)]
    return _box(b"moov", _full(b"mvhd", 1, 0, mvhd, struct.pack(">I", len(tables) + 1)), *traks)


def _trak(number: int, table: _Table, scale: int, first: Track) -> bytes:
    video = number == 1
    total = sum(table.deltas)
    shape = first.header if video else IDENTITY + bytes(8)
    tkhd = struct.pack(">QQI4xQ8xHHH2x", 0, 0, number, table.delay + table.length, 0, 0, 0 if video else 0x100) + shape
    edits = [struct.pack(">QqI", table.delay, -1, 0x10000)] if table.delay else []
    edits.append(struct.pack(">QqI", table.length, table.media_time, 0x10000))
    head = _full(b"vmhd", 0, 1, bytes(8)) if video else _full(b"smhd", 0, 0, bytes(4))
    handler = b"vide" if video else b"soun"
    return _box(
        b"trak",
        _full(b"tkhd", 1, 3, tkhd),
        _box(b"edts", _full(b"elst", 1, 0, struct.pack(">I", len(edits)), *edits)),
        _box(
            b"mdia",
            _full(b"mdhd", 1, 0, struct.pack(">QQIQHH", 0, 0, table.timescale, total, 0x55C4, 0)),  # language und
            _full(b"hdlr", 0, 0, bytes(4), handler, bytes(12), b"Jobsite\0"),
            _box(
                b"minf",
                head,
                _box(b"dinf", _full(b"dref", 0, 0, struct.pack(">I", 1), _full(b"url ", 0, 1))),
                _box(b"stbl", table.index, _full(b"co64", 0, 0, _numbers(table.offsets, "Q", count=True))),
            ),
        ),
    )


def _samples(table: _Table, *, video: bool) -> bytes:
    parts = [_full(b"stsd", 0, 0, struct.pack(">I", len(table.entries)), *table.entries)]
    parts.append(_run_table(b"stts", table.deltas, "I"))
    if any(table.shifts):
        parts.append(_run_table(b"ctts", table.shifts, "i"))
    if video and len(table.sync) < len(table.sizes):
        parts.append(_full(b"stss", 0, 0, _numbers(table.sync, "I", count=True)))
    held, chunk_number = [], 1
    for (samples, description), run in groupby(table.chunks, lambda c: (c.last - c.first, c.description)):
        held += [chunk_number, samples, description]
        chunk_number += len(list(run))
    parts.append(_full(b"stsc", 0, 0, struct.pack(">I", len(held) // 3), _numbers(held, "I")))
    parts.append(_full(b"stsz", 0, 0, bytes(4), _numbers(table.sizes, "I", count=True)))
    return b"".join(parts)


def _run_table(name: bytes, values: list[int], code: str) -> bytes:
    runs = [(len(list(run)), value) for value, run in groupby(values)]
    signed = 1 if code == "i" and min(values) < 0 else 0
    pairs = b"".join(struct.pack(f">I{code}", *pair) for pair in runs)
    return _full(name, signed, 0, struct.pack(">I", len(runs)), pairs)


def _numbers(values, code: str, *, count: bool = False) -> bytes:
    return (struct.pack(">I", len(values)) if count else b"") + struct.pack(f">{len(values)}{code}", *values)
