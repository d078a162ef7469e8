"""What a delimited text file (CSV) is: its encoding, delimiter, header and what each column holds, from its bytes.

Plain searching in bytes and Python's own csv reader on the first two megabytes, so it is safe in a web process too:
what can be known to be wrong is known before a job is sold (FAULTS S10).
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import ErrorCode, JobError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
MAX_COLUMNS = 1000
MAX_LINE = 1_000_000  # bytes; DuckDB's own limit is twice that, and it says so only after reading on for seconds
NAME_LONGEST = 100  # characters
BLOCK = 256 * 1024  # bytes
HEAD = 2 * 1024 * 1024  # bytes that are looked at closely
SAMPLE_ROWS, SAMPLE_CELLS, FEWEST_ROWS = 1000, 20_000, 20  # are looked at: a thousand rows, of wide tables fewer
MISSING = ("", "NA", "N/A", "n/a", "NULL", "null", "None", "NaN", "nan", "#N/A", "-")
BINARY = re.compile(r"[\x01-\x08\x0e-\x1a\x1c-\x1f]")  # signs of no text; a NUL alone is a flaw, which is told of
LEAD = re.compile(
    r'((?: *|"?sep=[,;|\t]"? *)(?:\r\n|\r|\n))+', re.IGNORECASE
)  # empty lines, and a word for Excel alone
MARKUP = re.compile(r"\s*(<|[{\[]\s*[\"{\[\]}]|#EXTM3U|%PDF|ffconcat|#!)")  # text, but no table

csv.field_size_limit(HEAD)  # of the whole process; Python's own is 131,072 characters, and a cell may be a whole line

CURRENCY = "$€£¥% \u00a0"  # signs that are taken off a number
NUMBERS = {  # how a column writes its numbers: pattern; the sign may stand before or after the currency
    "plain": re.compile(r"[+-]?(0|[1-9]\d{0,14})(\.\d+)?([eE][+-]?\d{1,3})?|[+-]?\.\d+"),
    "thousands": re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?"),
    "comma": re.compile(r"[+-]?(0|[1-9]\d{0,14}|[1-9]\d{0,2}(\.\d{3})+)(,\d+)?"),
}
ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?")
PARTS = re.compile(r"(\d{1,4})([/.-])(\d{1,2})\2(\d{1,4})( \d{1,2}:\d\d(:\d\d)?)?")


class NoTable(Exception):
    """The file is no delimited text at all."""


@dataclass(frozen=True)
class Column:
    """One column: `form` is how its cells are written, see `NUMBERS` and `dates`; empty for text."""

    name: str
    type: str  # number, date or text
    form: str = ""
    padded: bool = False  # there are blanks around its cells


@dataclass(frozen=True)
class Dialect:
    """How a file is to be read. `encoding` is Python's name for it; quotes are always `"`, doubled inside.

    `skip`: lines before the table's first. `flawed`: it is UTF-8 but for some bytes.
    """

    encoding: str
    delimiter: str
    header: bool
    columns: tuple[Column, ...]
    skip: int = 0
    flawed: bool = False


def look(path: Path, *, header: bool | None = None) -> Dialect:
    """The dialect of a file. NoTable if it is none; JobError(bad_input) for one that cannot be taken, saying why.

    `header` says whether the first row names the columns, if the caller knows.
    """
    with open(path, "rb") as file:
        raw = file.read(HEAD)
    encoding = _wide(raw) or "utf-8"
    text = _decoded(raw, encoding)
    if BINARY.search(text, 0, 4096) or not text.strip() or MARKUP.match(text):
        raise NoTable
    flawed = False
    if _narrow(encoding):
        encoding, flawed = _scan(path)
        text = _decoded(raw, encoding)
    lead = LEAD.match(text)
    skip = len(re.findall(r"\r\n|\r|\n", lead[0])) if lead else 0
    text = text[lead.end() :] if lead else text
    delimiter, rows = _rows(text, whole=len(raw) < HEAD)
    width = len(rows[0])
    if width > MAX_COLUMNS:
        raise _unfit(f"has {width:,} columns; at most {MAX_COLUMNS:,} are allowed")
    rows = rows[: max(FEWEST_ROWS, SAMPLE_CELLS // width)]
    named = _has_header(rows) if header is None else header
    body = rows[1:] if named else rows
    if not body:
        raise _unfit("has a header and no rows")
    names = _names(rows[0] if named else [""] * width)
    cells = [[row[at] for row in body if at < len(row)] for at in range(width)]
    spaced = f"{delimiter} " in text  # the reader has taken these spaces away
    columns = tuple(_column(name, own, delimiter, padded=spaced) for name, own in zip(names, cells, strict=True))
    return Dialect(encoding, delimiter, named, columns, skip, flawed)


def transcoded(path: Path, encoding: str, target: Path) -> Iterator[int]:
    """Write the file as UTF-8 to `target`; yields the bytes done. JobError(bad_input) for NULs and long lines."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    longest = _Lines()
    with open(path, "rb") as source, open(target, "wb") as out:
        done = 0
        while block := source.read(BLOCK):
            done += len(block)
            data = decoder.decode(block).encode()
            longest.feed(data)
            out.write(data)
            yield done
        out.write(decoder.decode(b"", final=True).encode())


def _unfit(what: str) -> JobError:
    return JobError(ErrorCode.bad_input, f"The file {what}.")


# --- encoding ------------------------------------------------------------------------------------------------------


def _wide(raw: bytes) -> str:
    """`utf-16…` if the bytes are, with a byte order mark or without one; else empty."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    head = raw[:4096]
    if len(head) >= 8 and b"\0" in head:  # mostly Western text: every second byte is 0
        if head[1::2].count(0) > 0.4 * len(head) and 0 not in head[::2]:
            return "utf-16-le"
        if head[::2].count(0) > 0.4 * len(head) and 0 not in head[1::2]:
            return "utf-16-be"
    return ""


def _narrow(encoding: str) -> bool:
    return not encoding.startswith("utf-16")


def _decoded(raw: bytes, encoding: str) -> str:
    return codecs.getincrementaldecoder(encoding)(errors="replace").decode(raw).removeprefix("\ufeff")


def _scan(path: Path) -> tuple[str, bool]:
    """The encoding of a file of single bytes or UTF-8, read to its end, and whether it is UTF-8 with other bytes in it.

    JobError(bad_input) for NULs and long lines.
    """
    utf8: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("utf-8")()
    lines, pending, good, flawed, last = _Lines(), False, False, False, b""
    with open(path, "rb") as file:
        marked = file.read(3) == codecs.BOM_UTF8
        file.seek(0)
        while block := file.read(BLOCK):
            lines.feed(block)
            last = block
            if utf8 and (pending or not block.isascii()):
                try:
                    good = bool(utf8.decode(block)) or good
                    pending = bool(utf8.getstate()[0])
                except UnicodeDecodeError:
                    utf8, flawed = None, marked or good or _mostly_utf8(block)
    if utf8 and pending:  # the file ends in the middle of a character
        flawed = marked or _mostly_utf8(last)
    if (utf8 is None or pending) and not flawed:
        return "cp1252", False  # Latin-1 as it is written since Windows: with the euro sign
    return ("utf-8-sig" if marked else "utf-8"), flawed


def _mostly_utf8(block: bytes) -> bool:
    """Whether more of the block's letters beyond ASCII are UTF-8 than not: one broken byte makes no other encoding."""
    text = block.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    return len(text) - len(text.encode("ascii", "ignore")) > 2 * wrong


class _Lines:
    """Looks for NULs and for lines over MAX_LINE in the blocks of a file, at the speed of memory."""

    def __init__(self):
        self.read = self.open = 0  # bytes before this block; bytes of the line that is open at its start

    def feed(self, block: bytes) -> None:
        if (at := block.find(b"\0")) >= 0:
            raise _unfit(f"has a NUL character, which no text has, at byte {self.read + at:,}")
        first = block.find(b"\n") if b"\n" in block else block.find(b"\r")
        if self.open + (len(block) if first < 0 else first) > MAX_LINE:
            raise _unfit(f"has a line of more than {MAX_LINE:,} bytes, near byte {self.read - self.open:,}")
        last = max(block.rfind(b"\n"), block.rfind(b"\r"))
        self.open = self.open + len(block) if first < 0 else len(block) - last - 1
        self.read += len(block)


# --- dialect -------------------------------------------------------------------------------------------------------


def _rows(text: str, *, whole: bool) -> tuple[str, list[list[str]]]:
    """The delimiter under which the first rows have most evenly most columns, and those rows. NoTable if none does."""
    best: tuple[bool, float, int] | None = None
    found: tuple[str, list[list[str]]] | None = None
    ends = []
    for delimiter in DELIMITERS:
        rows, ended = _read(text, delimiter, whole=whole)
        ends.append(ended)
        if rows and len(rows[0]) > 1 and (best is None or (ended, _evenness(rows), len(rows[0])) > best):
            best, found = (ended, _evenness(rows), len(rows[0])), (delimiter, rows)
    if not (best[0] if best else any(ends)):
        raise _unfit("has a quote that is opened and not closed, or closed in the middle of a cell")
    if found is None:
        raise NoTable
    return found


def _evenness(rows: list[list[str]]) -> float:
    """The share of rows that are as long as the first."""
    return sum(len(row) == len(rows[0]) for row in rows) / len(rows)


def _read(text: str, delimiter: str, *, whole: bool) -> tuple[list[list[str]], bool]:
    """The first rows, without empty ones, and whether they could be read up to the sample's end."""
    rows: list[list[str]] = []
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)  # as DuckDB does before quotes
    try:
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) == SAMPLE_ROWS:
                return rows, True
    except csv.Error:  # an open quote; in a part of a file its last row may just be cut
        return rows, not whole and len(rows) > 1
    return (rows if whole or len(rows) < 2 else rows[:-1]), True


def _has_header(rows: list[list[str]]) -> bool:
    """Whether the first row names the columns: its cells differ from what is below them."""
    first, body = rows[0], rows[1:101]
    if not body or len({cell.strip().lower() for cell in first}) < len(first):
        return not any(map(_type, first))  # repeated or empty names may still be names
    votes = 0
    for at, cell in enumerate(first):
        below = [row[at].strip() for row in body if at < len(row) and row[at].strip()]
        typed = sum(bool(_type(value)) for value in below)
        if typed > len(below) / 2:
            votes += -1 if _type(cell.strip()) else 1
        elif cell.strip() in below and len(set(below)) < len(below):
            votes -= 1
    return votes > 0 or (votes == 0 and not any(_type(cell.strip()) for cell in first))


def _type(cell: str) -> str:
    if any(pattern.fullmatch(_bare(cell)) for pattern in NUMBERS.values()):
        return "number"
    return "date" if ISO.fullmatch(cell) or PARTS.fullmatch(cell) else ""


def _bare(cell: str) -> str:
    return cell.translate({ord(sign): None for sign in CURRENCY})


def _names(cells: list[str]) -> list[str]:
    """A name for each column: printable, at most 100 characters, none twice (letter case does not count)."""
    names: list[str] = []
    taken: set[str] = set()
    for number, cell in enumerate(cells, 1):
        plain = "".join(character if character.isprintable() else " " for character in cell)
        base = " ".join(plain.split())[:NAME_LONGEST] or f"column {number}"
        name, again = base, 2
        while name.lower() in taken:
            name, again = f"{base} ({again})", again + 1
        taken.add(name.lower())
        names.append(name)
    return names


def _column(name: str, raw: list[str], delimiter: str = ",", *, padded: bool = False) -> Column:
    """What a column holds, by its first cells: at least nine in ten that are there must be written in one way."""
    cells = [cell.strip() for cell in raw]
    padded = padded or cells != raw
    there = [cell for cell in cells if cell not in MISSING]
    if not there:
        return Column(name, "text", padded=padded)
    forms = ["plain", "comma", "thousands"] if delimiter == ";" else [*NUMBERS]  # `;` is for those who write 1,250 kg
    for form, pattern in ((form, NUMBERS[form]) for form in forms):
        others = () if form == "plain" else (NUMBERS["plain"],)  # 1,234 and 567 stand in one column
        hits = sum(any(way.fullmatch(_bare(cell)) for way in (pattern, *others)) for cell in there)
        if hits >= 0.9 * len(there):
            signed = any(_bare(cell) != cell for cell in there)
            return Column(name, "number", form + ("+signs" if signed else ""), padded)
    if sum(bool(ISO.fullmatch(cell)) for cell in there) >= 0.9 * len(there):
        return Column(name, "date", "iso", padded)
    dates = [found for found in map(PARTS.fullmatch, there) if found]
    if len(dates) >= 0.9 * len(there) and (form := _order(dates)):
        return Column(name, "date", form, padded)
    return Column(name, "text", padded=padded)


def _order(dates: list[re.Match]) -> str:
    """The order of day, month and year, as strptime writes it; empty if the parts cannot be dates.

    Where both orders would do, points mean the day first, strokes the month first.
    """
    mark = dates[0][2]
    parts = [(int(date[1]), int(date[3]), int(date[4])) for date in dates]
    if any(date[2] != mark for date in dates):
        return ""
    if all(len(date[1]) == 4 for date in dates):
        return mark.join(("%Y", "%m", "%d"))
    first, second = max(part[0] for part in parts), max(part[1] for part in parts)
    year = "%Y" if all(len(date[4]) == 4 for date in dates) else "%y"
    if first > 31 or second > 31 or (first > 12 and second > 12):
        return ""
    day_first = first > 12 or (second <= 12 and mark != "/")
    return mark.join(("%d", "%m", year) if day_first else ("%m", "%d", year))
