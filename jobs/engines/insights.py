"""What a table says: a profile of each column, outliers, correlations, and insights, each with its numbers and query.

An insight is a sentence over `evidence`: queries on the table `data` and the numbers that they answered, so that
everyone can ask again. Nothing here is random or guessed; a language model may say more about it (`engines/llm`).
"""
# ruff: noqa: S608 - SQL is composed here; every name in it is quoted and no text of the user's is anything else

from itertools import combinations
from typing import Any

from jobs.engines import tool
from jobs.engines.delimited import Column
from jobs.engines.tables import CELL_LONGEST, Table, quoted

EXACT_ROWS = 1_000_000  # up to here distinct values are counted exactly, beyond by a sketch (about 2 % off)
EXACT_QUARTILES = 20_000_000  # up to here quartiles are exact: 160 MB for one column; beyond by a sketch
MOST_NUMBERS = 20  # columns that are compared in pairs
TOP_VALUES = 5
TOP_DISTINCT = 10_000  # beyond so many different texts there is no telling top value
PAIRS_KEPT = 50
PERIODS = (("year", 366 * 8), ("month", 31 * 8), ("week", 7 * 8), ("day", 8), ("hour", 8 / 24))  # days it takes
BEST = 5  # insights of each kind

Fact = dict[str, Any]


def profile(table: Table, progress: tool.Progress = lambda fraction: None) -> list[Fact]:
    """One entry a column: name, type, its numbers and the query that they come from."""
    found = []
    for number, column in enumerate(table.columns):
        query = _profile_query(table, column)
        entry = {"name": column.name, "type": column.type, **table.ask(query), "query": query}
        if column.type == "text" and entry["distinct"] <= TOP_DISTINCT:
            entry["top_query"] = _top_query(column, TOP_VALUES)
            entry["top"] = table.list(entry["top_query"])
        entry["sequence"] = _is_sequence(entry)
        found.append(entry)
        progress((number + 1) / len(table.columns))
    return found


def _profile_query(table: Table, column: Column) -> str:
    name = quoted(column.name)
    distinct = f"count(DISTINCT {name})" if table.rows <= EXACT_ROWS else f"approx_count_distinct({name})"
    chosen = [f"count({name}) AS count", f"count(*) - count({name}) AS missing", f"{distinct} AS distinct"]
    if column.type == "text":
        chosen += [f"min(length({name})) AS shortest", f"max(length({name})) AS longest"]
    else:
        chosen += [f"min({name}) AS min", f"max({name}) AS max"]
    if column.type == "number":
        quartiles = "quantile_cont" if table.rows <= EXACT_QUARTILES else "approx_quantile"
        chosen += [
            f"avg({name}) AS mean",
            f"stddev_samp({name}) AS std",
            f"{quartiles}({name}, [0.25, 0.5, 0.75]) AS quartiles",
            f"coalesce(bool_and({name} = floor({name})), false) AS whole",
        ]
    return f"SELECT {', '.join(chosen)} FROM data"


def _top_query(column: Column, most: int) -> str:
    name = quoted(column.name)
    return (
        f"SELECT left({name}, {CELL_LONGEST}) AS value, count(*) AS rows, "
        f"count(*) / (SELECT count({name}) FROM data) AS share "
        f"FROM data WHERE {name} IS NOT NULL GROUP BY {name} ORDER BY rows DESC, {name} LIMIT {most}"
    )


def _is_sequence(entry: Fact) -> bool:
    """Whether the column only numbers its rows: whole, each once, without gaps. It is no measure of anything."""
    if entry["type"] != "number" or not entry["count"] or not entry["whole"]:
        return False
    return entry["max"] - entry["min"] + 1 == entry["count"] and entry["distinct"] >= 0.9 * entry["count"] >= 9


def measures(found: list[Fact]) -> list[Fact]:
    """The columns that measure something: numbers that vary and do not just count rows."""
    return [entry for entry in found if entry["type"] == "number" and entry["std"] and not entry["sequence"]]


def outliers(table: Table, found: list[Fact]) -> list[Fact]:
    """Values beyond one and a half interquartile ranges (Tukey's fences), for each measure that has any."""
    facts = []
    for entry in measures(found):
        low, _median, high = entry["quartiles"]
        reach = 1.5 * (high - low)
        if not reach:
            continue
        name = quoted(entry["name"])
        beyond = f"FILTER ({name} < {low - reach!r} OR {name} > {high + reach!r})"
        query = (
            f"SELECT {low - reach!r}::DOUBLE AS lower, {high + reach!r}::DOUBLE AS upper, "
            f"count(*) {beyond} AS outliers, count({name}) AS count, "
            f"min({name}) {beyond} AS lowest, max({name}) {beyond} AS highest FROM data"
        )
        numbers = table.ask(query)
        if numbers["outliers"]:
            facts.append({"column": entry["name"], **numbers, "query": query})
    return facts


def correlations(table: Table, found: list[Fact]) -> list[Fact]:
    """Pearson's r of every pair of the first measures, strongest first."""
    pairs = list(combinations([entry["name"] for entry in measures(found)[:MOST_NUMBERS]], 2))
    if not pairs:
        return []
    both = [(f"corr({quoted(a)}, {quoted(b)})", f"regr_count({quoted(a)}, {quoted(b)})") for a, b in pairs]
    wide = ", ".join(f"{r} AS r{at}, {count} AS count{at}" for at, (r, count) in enumerate(both))
    answer = table.ask(f"SELECT {wide} FROM data")  # one pass over the table for all of them
    facts = []
    for at, (pair, (r, count)) in enumerate(zip(pairs, both, strict=True)):
        numbers = {"r": answer[f"r{at}"], "count": answer[f"count{at}"]}
        if numbers["r"] is not None:
            facts.append({"columns": list(pair), **numbers, "query": f"SELECT {r} AS r, {count} AS count FROM data"})
    return sorted(facts, key=lambda fact: -abs(fact["r"]))[:PAIRS_KEPT]


def trends(table: Table, found: list[Fact]) -> list[Fact]:
    """How each measure's mean moves from period to period, along the date column that is most complete."""
    dates = [entry for entry in found if entry["type"] == "date" and entry["count"]]
    if not dates:
        return []
    along = max(dates, key=lambda entry: entry["count"])
    when = quoted(along["name"])
    days = table.ask(f"SELECT date_diff('second', min({when}), max({when})) / 86400.0 AS days FROM data")["days"]
    period = next((name for name, least in PERIODS if days >= least), None)
    if period is None:
        return []
    facts = []
    for entry in measures(found)[:MOST_NUMBERS]:
        name = quoted(entry["name"])
        query = (
            f"WITH periods AS (SELECT date_trunc('{period}', {when}) AS period, avg({name}) AS mean FROM data "
            f"WHERE {when} IS NOT NULL AND {name} IS NOT NULL GROUP BY 1), "
            "numbered AS (SELECT *, row_number() OVER (ORDER BY period) AS number FROM periods) "
            "SELECT count(*) AS periods, regr_slope(mean, number) AS change, corr(mean, number) AS r, "
            "arg_min(mean, number) AS first, arg_max(mean, number) AS last, "
            "min(period) AS since, max(period) AS until FROM numbered"
        )
        facts.append({"column": entry["name"], "along": along["name"], "period": period} | table.ask(query))
        facts[-1]["query"] = query
    return facts


# --- sentences -----------------------------------------------------------------------------------------------------


def insights(
    table: Table, found: list[Fact], beyond: list[Fact], pairs: list[Fact], moving: list[Fact]
) -> list[dict[str, Any]]:
    """The sentences that the facts are worth, the best few of each kind."""
    told = [_size(table), *_trends(moving), *_correlations(pairs), *_outliers(beyond)]
    return [*told, *_missing(table, found), *_imbalances(table, found)]


def _size(table: Table) -> dict[str, Any]:
    query = "SELECT count(*) AS rows FROM data"
    columns = f"{_n(len(table.columns))} columns" if len(table.columns) > 1 else "one column"
    return _told("size", f"The table has {_n(table.rows)} rows and {columns}.", [], query, table.ask(query))


def _trends(moving: list[Fact]) -> list[dict[str, Any]]:
    clear = [
        fact
        for fact in moving
        if fact["r"] is not None
        and fact["periods"] >= 6
        and abs(fact["r"]) >= 0.7
        and abs(fact["change"]) * (fact["periods"] - 1) >= 0.05 * max(abs(fact["first"]), abs(fact["last"]))
    ]
    return [
        _told(
            "trend",
            f"{fact['column']} {'rises' if fact['change'] > 0 else 'falls'} by about {_n(abs(fact['change']))} a "
            f"{fact['period']}: its mean was {_n(fact['first'])} in the first of {_n(fact['periods'])} "
            f"{fact['period']}s and {_n(fact['last'])} in the last (r = {fact['r']:.2f}).",
            [fact["column"], fact["along"]],
            fact["query"],
            _of(fact, "periods", "change", "r", "first", "last", "since", "until"),
        )
        for fact in sorted(clear, key=lambda fact: -abs(fact["r"]))[:BEST]
    ]


def _correlations(pairs: list[Fact]) -> list[dict[str, Any]]:
    strong = [fact for fact in pairs if abs(fact["r"]) >= 0.7 and fact["count"] >= 10]
    return [
        _told(
            "correlation",
            f"{' and '.join(fact['columns'])} move {'together' if fact['r'] > 0 else 'against each other'} "
            f"(r = {fact['r']:.2f} over {_n(fact['count'])} rows).",
            fact["columns"],
            fact["query"],
            _of(fact, "r", "count"),
        )
        for fact in strong[:BEST]
    ]


def _outliers(beyond: list[Fact]) -> list[dict[str, Any]]:
    return [
        _told(
            "outlier",
            f"{fact['column']}: {_n(fact['outliers'])} of {_n(fact['count'])} values outside {_n(fact['lower'])} to "
            f"{_n(fact['upper'])}, from {_n(fact['lowest'])} to {_n(fact['highest'])}.",
            [fact["column"]],
            fact["query"],
            _of(fact, "lower", "upper", "outliers", "count", "lowest", "highest"),
        )
        for fact in sorted(beyond, key=lambda fact: -fact["outliers"] / fact["count"])[:BEST]
    ]


def _missing(table: Table, found: list[Fact]) -> list[dict[str, Any]]:
    gaps = sorted((entry for entry in found if entry["missing"] >= 0.05 * table.rows), key=lambda e: -e["missing"])
    told = []
    for entry in gaps[:BEST]:
        name = quoted(entry["name"])
        query = (
            f"SELECT count(*) - count({name}) AS missing, count(*) AS rows, "
            f"(count(*) - count({name})) / count(*) AS share FROM data"
        )
        numbers = table.ask(query)
        text = f"{entry['name']} is missing in {_n(numbers['missing'])} of {_n(numbers['rows'])} rows"
        told.append(_told("missing", f"{text} ({numbers['share']:.1%}).", [entry["name"]], query, numbers))
    return told


def _imbalances(table: Table, found: list[Fact]) -> list[dict[str, Any]]:
    uneven = [e for e in found if e.get("top") and 2 <= e["distinct"] <= 1000 and e["top"][0]["share"] >= 0.8]
    told = []
    for entry in sorted(uneven, key=lambda entry: -entry["top"][0]["share"])[:BEST]:
        query = _top_query(Column(entry["name"], "text"), 1)
        numbers = table.ask(query)
        text = f"{entry['name']} is {numbers['value']} in {_n(numbers['rows'])} rows"
        text += f" ({numbers['share']:.1%} of those with a value)."
        told.append(_told("imbalance", text, [entry["name"]], query, numbers))
    return told


def _told(kind: str, text: str, columns: list[str], query: str, numbers: dict[str, Any]) -> dict[str, Any]:
    evidence = [{"query": query, "numbers": numbers}]
    return {"kind": kind, "text": text, "columns": columns, "by": "rules", "evidence": evidence}


def _of(fact: Fact, *names: str) -> dict[str, Any]:
    return {name: fact[name] for name in names}


def _n(number: float | None) -> str:
    """A number as people write it: whole ones whole, others with four digits that count."""
    if number is None:
        return "nothing"
    if number == int(number) or abs(number) >= 10_000:
        return f"{round(number):,}" if abs(number) < 1e15 else f"{number:.4g}"
    return f"{number:.4g}"
