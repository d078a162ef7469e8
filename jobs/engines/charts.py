"""A table's pictures: up to seven PNGs of what its facts show, drawn with Pillow, the same bytes for the same table."""
# ruff: noqa: S608 - SQL is composed here; every name in it is quoted and no text of the user's is anything else

from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from jobs.engines.insights import Fact, measures
from jobs.engines.tables import Table, quoted

WIDTH, HEIGHT = 800, 450  # pixels
LEFT, TOP, RIGHT, BOTTOM = 110, 50, 770, 400  # the plot within them
INK, PALE, BLUE = "#222222", "#dddddd", "#2f6fb2"
FONT = Path(__file__).parent / "fonts" / "DejaVuSansMono.ttf"
LINES, HISTOGRAMS, BARS = 2, 2, 2  # charts of each sort at most
BINS = 20
HEAT_MOST = 10  # columns in the heat map


def draw(table: Table, found: list[Fact], pairs: list[Fact], moving: list[Fact]) -> list[dict[str, Any]]:
    """Draw `chart-1.png` … into the table's folder. Returns what each shows, and the query that it was drawn from."""
    clear = sorted((fact for fact in moving if fact["r"] is not None), key=lambda fact: -abs(fact["r"]))
    charts = [_line(table, fact) for fact in clear[:LINES]]
    charts += [_histogram(table, entry) for entry in measures(found)[:HISTOGRAMS]]
    uneven = [entry for entry in found if entry.get("top") and entry["distinct"] >= 2 and entry["top"][0]["rows"] > 1]
    charts += [_bars(entry) for entry in sorted(uneven, key=lambda entry: entry["distinct"])[:BARS]]
    if len(measures(found)) >= 3 and pairs:
        charts.append(_heat([entry["name"] for entry in measures(found)[:HEAT_MOST]], pairs))
    told = []
    for number, (picture, facts) in enumerate(charts, 1):
        name = f"chart-{number}.png"
        picture.save(table.folder / name, optimize=False)
        told.append({"name": name, **facts})
    return told


def _line(table: Table, fact: Fact) -> tuple[Image.Image, dict[str, Any]]:
    when, name = quoted(fact["along"]), quoted(fact["column"])
    query = (
        f"SELECT date_trunc('{fact['period']}', {when}) AS period, avg({name}) AS mean FROM data "
        f"WHERE {when} IS NOT NULL AND {name} IS NOT NULL GROUP BY 1 ORDER BY 1"
    )
    rows = [row for row in table.list(query) if row["mean"] is not None]
    values = [row["mean"] for row in rows]
    title = f"{fact['column']}: mean by {fact['period']}"
    picture, pen = _sheet(title)
    low, high = min(values), max(values)
    spread = (high - low) or abs(high) or 1.0
    _scale(pen, low, low + spread)
    points = []
    for at, value in enumerate(values):
        across = LEFT + (RIGHT - LEFT) * at / max(1, len(values) - 1)
        points.append((across, BOTTOM - (BOTTOM - TOP) * (value - low) / spread))
    pen.line(points, fill=BLUE, width=3)
    _text(pen, (LEFT, BOTTOM + 10), rows[0]["period"][:10])
    _text(pen, (RIGHT, BOTTOM + 10), rows[-1]["period"][:10], anchor="ra")
    return picture, {"kind": "line", "title": title, "columns": [fact["column"], fact["along"]], "query": query}


def _histogram(table: Table, entry: Fact) -> tuple[Image.Image, dict[str, Any]]:
    name, low, high = quoted(entry["name"]), entry["min"], entry["max"]
    width = (high - low) / BINS or 1.0
    query = (
        f"SELECT least(floor(({name} - {low!r}) / {width!r}), {BINS - 1}) AS bin, count(*) AS rows FROM data "
        f"WHERE {name} IS NOT NULL GROUP BY 1 ORDER BY 1"
    )
    counts = {row["bin"]: row["rows"] for row in table.list(query) if row["bin"] is not None}
    title = f"{entry['name']}: how often"
    picture, pen = _sheet(title)
    most = max(counts.values(), default=1)
    _scale(pen, 0, most)
    step = (RIGHT - LEFT) / BINS
    for number, count in counts.items():
        left = LEFT + step * number
        pen.rectangle((left + 1, BOTTOM - (BOTTOM - TOP) * count / most, left + step - 2, BOTTOM), fill=BLUE)
    _text(pen, (LEFT, BOTTOM + 10), f"{low:.6g}")
    _text(pen, (RIGHT, BOTTOM + 10), f"{high:.6g}", anchor="ra")
    return picture, {"kind": "histogram", "title": title, "columns": [entry["name"]], "query": query}


def _bars(entry: Fact) -> tuple[Image.Image, dict[str, Any]]:
    title = f"{entry['name']}: most frequent values"
    picture, pen = _sheet(title)
    most = entry["top"][0]["rows"]
    step, left = (BOTTOM - TOP) / len(entry["top"]), LEFT + 80
    for number, row in enumerate(entry["top"]):
        top, end = TOP + step * number, left + (RIGHT - left - 100) * row["rows"] / most
        pen.rectangle((left, top + 8, end, top + step - 8), fill=BLUE)
        _text(pen, (left - 10, top + step / 2), _short(row["value"], 22), anchor="rm")
        _text(pen, (end + 8, top + step / 2), f"{row['rows']:,}", anchor="lm")
    return picture, {"kind": "bars", "title": title, "columns": [entry["name"]], "query": entry["top_query"]}


def _heat(names: list[str], pairs: list[Fact]) -> tuple[Image.Image, dict[str, Any]]:
    title = "correlations (Pearson's r)"
    picture, pen = _sheet(title)
    known = {tuple(sorted(fact["columns"])): fact["r"] for fact in pairs}
    step = (BOTTOM - TOP) / len(names)
    left = LEFT + 100
    for down, one in enumerate(names):
        _text(pen, (left - 10, TOP + step * (down + 0.5)), _short(one, 20), anchor="rm")
        for across, other in enumerate(names):
            r = 1.0 if one == other else known.get(tuple(sorted((one, other))))
            box = (left + step * across, TOP + step * down, left + step * (across + 1) - 2, TOP + step * (down + 1) - 2)
            strength = round(255 * (1 - abs(r or 0.0)))
            pen.rectangle(box, fill=(strength, strength, 255) if (r or 0.0) >= 0 else (255, strength, strength))
            shown = "–" if r is None else f"{r:.2f}"
            dark = abs(r or 0.0) > 0.6
            _text(
                pen, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), shown, anchor="mm", fill="white" if dark else INK
            )
    asked = ", ".join(f"corr({quoted(one)}, {quoted(other)})" for one, other in combinations(names, 2))
    return picture, {"kind": "heat map", "title": title, "columns": names, "query": f"SELECT {asked} FROM data"}


def _sheet(title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty sheet with a title and the plot's two axes."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    _text(pen, (WIDTH / 2, 14), _short(title, 70), anchor="ma", size=17)
    return picture, pen


def _scale(pen: ImageDraw.ImageDraw, low: float, high: float) -> None:
    """Lines across the plot with the values that they stand for."""
    for step in range(5):
        down = BOTTOM - (BOTTOM - TOP) * step / 4
        pen.line((LEFT, down, RIGHT, down), fill=PALE)
        _text(pen, (LEFT - 8, down), f"{low + (high - low) * step / 4:.4g}", anchor="rm")


def _text(pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, *, anchor="la", size=13, fill=INK) -> None:
    pen.text(at, text, fill=fill, font=_font(size), anchor=anchor)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT), size, layout_engine=ImageFont.Layout.BASIC)


def _short(text: str, most: int) -> str:
    """One line of at most so many characters that can be drawn."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= most else line[: most - 1] + "…"
