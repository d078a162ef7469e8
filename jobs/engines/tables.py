"""A delimited file as the table `data` of a DuckDB that can reach nothing but its work folder, in bounded memory.

Run as `python -m jobs.engines.tables` it is the child that reads the file: {"file", "header"} in, the table's facts
out; the table stays in the folder as `data.duckdb`. No text of the user's is ever SQL: names are quoted, cells are
values, and the walls are closed and locked before the file is opened (FAULTS trap 20, S12).
"""
# ruff: noqa: S608 - SQL is composed here; every name in it is quoted and no text of the user's is anything else

import dataclasses
import json
import math
import re
import threading
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb

from jobs.engines import delimited, tool
from jobs.engines.delimited import Column, Dialect
from jobs.errors import ErrorCode, JobError

MEMORY = "384MiB"  # DuckDB's own limit; the process has about 150 MiB more
SPILL = "8GiB"
DATABASE, FACTS = "data.duckdb", "table.json"
CELL_LONGEST = 100  # characters of a cell that are ever shown
GOOD_SHARE = 0.9  # of a column's values must be of its type, else it is text
WATCH_SECONDS = 0.5


def quoted(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("'", "''") + "'"


MISSING = ", ".join(map(literal, delimited.MISSING))


class Table:
    """The table `data`: columns, count of rows, what was odd about the file, and questions in SQL."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.columns: list[Column] = []
        self.rows = 0
        self.issues: list[str] = []
        self.dialect: dict[str, Any] = {}
        self.connection = duckdb.connect(str(folder / DATABASE))
        for line in (
            f"SET memory_limit = '{MEMORY}'",
            "SET threads = 2",
            f"SET temp_directory = {literal(str(folder / 'spill'))}",
            f"SET max_temp_directory_size = '{SPILL}'",
            "SET preserve_insertion_order = false",
            "SET enable_progress_bar = true",  # without it nothing is known of how far a statement is
            "SET enable_progress_bar_print = false",
            "SET autoinstall_known_extensions = false",
            "SET autoload_known_extensions = false",
            f"SET allowed_directories = [{literal(str(folder))}]",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        ):
            self.connection.execute(line)

    def ask(self, query: str) -> dict[str, Any]:
        """The only row of an answer, by name, as JSON can hold it. JobError for what DuckDB cannot do."""
        return self.list(query)[0]

    def list(self, query: str) -> list[dict[str, Any]]:
        """All rows of an answer."""
        try:
            answer = self.connection.execute(query)
            names = [column[0] for column in answer.description or ()]
            return [dict(zip(names, map(plain, row), strict=True)) for row in answer.fetchall()]
        except duckdb.Error as error:
            raise translated(error) from error

    def keep(self) -> None:
        """Close, leaving the table and its facts in the folder for `reopened`."""
        facts = {"rows": self.rows, "issues": self.issues, "dialect": self.dialect}
        facts["columns"] = [dataclasses.asdict(column) for column in self.columns]
        (self.folder / FACTS).write_text(json.dumps(facts))
        self.connection.close()


def reopened(folder: Path) -> Table:
    """The table that an earlier child left in the folder."""
    table = Table(folder)
    facts = json.loads((folder / FACTS).read_text())
    table.rows, table.issues, table.dialect = facts["rows"], facts["issues"], facts["dialect"]
    table.columns = [Column(**column) for column in facts["columns"]]
    return table


def plain(value: Any) -> Any:
    """A value of DuckDB's as JSON can hold it: no NaN, ISO dates, texts cut at 100 characters."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return value[:CELL_LONGEST]
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return value if value is None or isinstance(value, (bool, int)) else float(value)


# --- reading -------------------------------------------------------------------------------------------------------


def load(folder: Path, file: Path, progress: tool.Progress, *, header: bool | None = None) -> Table:
    """Read the file into a new table in the folder, each column as the type that its cells have.

    JobError(bad_input) for what is no table or has uneven rows, out_of_memory, or processing_error.
    """
    try:
        dialect = delimited.look(file, header=header)
    except delimited.NoTable:
        raise JobError(ErrorCode.bad_input, "The file is no table: no delimiter (, ; tab |) was found.") from None
    size = file.stat().st_size
    if dialect.flawed or dialect.encoding not in ("utf-8", "utf-8-sig"):
        target = folder / "utf-8.csv"
        for done in delimited.transcoded(file, dialect.encoding, target):
            progress(0.3 * done / size)
        file = target
    table = Table(folder)
    if dialect.flawed:
        table.issues.append("some bytes are no UTF-8; \ufffd stands for them")
    source = _source(dialect, file)
    watch = _Watch(table.connection, progress)
    try:
        try:
            table.columns = list(dialect.columns)
            table.connection.execute(create := _create(table.columns, source, strict=True))
        except duckdb.ConversionException:
            create = _load_tolerantly(table, source)
        table.rows = table.ask("SELECT count(*) AS rows FROM data")["rows"]
    except duckdb.Error as error:
        raise translated(error) from error
    finally:
        watch.end()
    if not table.rows:
        raise JobError(ErrorCode.bad_input, "The file has no rows.")
    table.dialect = {
        "encoding": dialect.encoding,
        "delimiter": delimited.DELIMITERS[dialect.delimiter],
        "header": dialect.header,
        "load": create.replace(literal(str(file)), "'data.csv'"),
    }
    return table


def _source(dialect: Dialect, file: Path) -> str:
    """`read_csv` of the file with nothing left to guess, every cell as text."""
    columns = ", ".join(f"{literal(column.name)}: 'VARCHAR'" for column in dialect.columns)
    header = str(dialect.header).lower()
    return (
        f"read_csv({literal(str(file))}, delim={literal(dialect.delimiter)}, quote='\"', escape='\"', header={header}, "
        f"auto_detect=false, compression='none', nullstr=[{MISSING}], skip={dialect.skip}, columns={{{columns}}})"
    )


def _create(columns: list[Column], source: str, *, strict: bool) -> str:
    """SQL that makes `data`; strictly read, one cell that is not of its column's type fails it all."""
    chosen = [f"{_converted(column, strict=strict)} AS {quoted(column.name)}" for column in columns]
    return f"CREATE TABLE data AS SELECT {', '.join(chosen)} FROM {source}"


def _converted(column: Column, *, strict: bool) -> str:
    """SQL for a column's value from its text. What is not finite is missing."""
    text, cast, strptime = _cell(column), *(("CAST", "strptime") if strict else ("TRY_CAST", "try_strptime"))
    if column.type == "text":
        return text
    if column.type == "date":
        if column.form == "iso":
            date = f"{cast}({text} AS TIMESTAMP)"  # takes "infinity", too
            return f"CASE WHEN isfinite({date}) THEN {date} END"
        forms = ", ".join(literal(column.form + time) for time in ("", " %H:%M", " %H:%M:%S"))
        return f"{strptime}({text}, [{forms}])"
    form, signs, _ = column.form.partition("+")
    bare = f"translate({text}, {literal(delimited.CURRENCY)}, '')" if signs else text
    digits = {"thousands": f"replace({bare}, ',', '')", "comma": f"replace(replace({bare}, '.', ''), ',', '.')"}
    if form in digits:
        pattern = literal(delimited.NUMBERS[form].pattern)
        bare = f"CASE WHEN regexp_full_match({bare}, {pattern}) THEN {digits[form]} ELSE {bare} END"
    number = f"{cast}({bare} AS DOUBLE)"
    return f"CASE WHEN isfinite({number}) THEN {number} END"


def _cell(column: Column) -> str:
    """SQL for a column's text without the blanks around it; nothing but blanks, or a word for it, is missing."""
    if not column.padded:
        return quoted(column.name)
    bare = f"trim({quoted(column.name)})"  # with all that may stand around it named, it takes four times as long
    return f"CASE WHEN {bare} NOT IN ({MISSING}) THEN {bare} END"


def _load_tolerantly(table: Table, source: str) -> str:
    """Read all as text first; a cell that is not of its column's type is missing then, and told of in the issues.

    A column of which that would be more than one in ten is text. Returns the SQL that makes the table.
    """
    table.connection.execute(f"CREATE TABLE raw AS SELECT * FROM {source}")
    typed = [column for column in table.columns if column.type != "text"]
    odd = [found for found in _counted(table, typed) if found[1] != found[2]]
    bare = _counted(table, [dataclasses.replace(column, padded=True) for column, _there, _good in odd])
    for plainly, trimmed in zip(odd, bare, strict=True):
        column, there, good = trimmed if trimmed[1:] != plainly[1:] else plainly  # trimming takes time
        at = table.columns.index(plainly[0])
        if good < GOOD_SHARE * there:
            table.columns[at] = dataclasses.replace(column, type="text", form="")
        else:
            table.columns[at] = column
            if there != good:
                table.issues.append(f"{column.name}: {there - good} cells are no {column.type} and count as missing")
    table.connection.execute(_create(table.columns, "raw", strict=False))
    table.connection.execute("DROP TABLE raw")
    return _create(table.columns, source, strict=False)


def _counted(table: Table, columns: list[Column]) -> list[tuple[Column, int, int]]:
    """(column, cells that are there, cells that are of its type) of columns of the table `raw`."""
    if not columns:
        return []
    counts = ", ".join(f"count({_cell(c)}), count({_converted(c, strict=False)})" for c in columns)
    found = table.connection.execute(f"SELECT {counts} FROM raw").fetchone() or ()
    return list(zip(columns, found[::2], found[1::2], strict=True))


class _Watch:
    """Tells how far DuckDB is with long statements, one after the other: only real movement is told.

    Progress never falls, but each one's movement is told, also while it is behind what the one before reached.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, progress: tool.Progress):
        self.ended, self.seen, self.most = threading.Event(), -1.0, 0.0
        self.connection, self.progress = connection, progress
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self) -> None:
        while not self.ended.wait(WATCH_SECONDS):
            percent = self.connection.query_progress()
            if percent != self.seen:
                self.seen, self.most = percent, max(self.most, percent)
                self.progress(0.3 + 0.7 * self.most / 100)

    def end(self) -> None:
        self.ended.set()
        self.thread.join()


def translated(error: duckdb.Error) -> JobError:
    """What went wrong in words for the user: never DuckDB's own, which quote the file."""
    words = str(error)
    if isinstance(error, duckdb.OutOfMemoryException):
        return JobError(ErrorCode.out_of_memory, "The table needs more memory than one may use.", retryable=False)
    if isinstance(error, duckdb.IOException):
        return JobError(ErrorCode.storage_error, "The work folder did not take the table.")
    line = re.match(r"[^\n]*CSV Error on Line: (\d+)\n", words)
    where = f"line {int(line[1]):,}" if line else "the file"
    if uneven := re.search(r"^Expected Number of Columns: (\d+) Found: (\d+)$", words, re.MULTILINE):
        wrong = f"has {int(uneven[2]):,} columns instead of {int(uneven[1]):,}"
    elif re.search(r"^Value with unterminated quote found\.$", words, re.MULTILINE):
        wrong = "has a quote that is opened and not closed, or closed in the middle of a cell"
    elif "aximum line size" in words:
        wrong = "has a row that is too long, or a quote that is not closed"
    elif "invalid state" in words:
        wrong = "has malformed quotes, or mixes two kinds of line ends"
    elif isinstance(error, duckdb.InvalidInputException):
        wrong = "cannot be read as a table"
    else:
        return JobError(ErrorCode.processing_error, f"The table could not be worked on ({type(error).__name__}).")
    return JobError(ErrorCode.bad_input, f"{where[0].upper()}{where[1:]} {wrong}.")


def work(task: dict[str, Any], progress: tool.Progress) -> dict[str, Any]:
    """The child's: read the file, leave the table."""
    folder = Path.cwd()
    header = {"yes": True, "no": False}.get(task["header"])
    table = load(folder, folder / task["file"], progress, header=header)
    table.keep()
    return {"rows": table.rows, "columns": len(table.columns)}


if __name__ == "__main__":
    tool.main(work)
