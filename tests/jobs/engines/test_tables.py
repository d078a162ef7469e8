"""Files read into the locked table: dialects alike, types, what is odd told or refused, walls that hold."""

import datetime
import threading

import duckdb
import pytest

from jobs.engines import tables
from jobs.errors import ErrorCode, JobError

SECRET = "s3cret-cell-" + "y" * 200


@pytest.fixture
def load(tmp_path):
    """load(data) → the table; closed after the test."""
    opened = []

    def make(data, **options):
        path = tmp_path / "input-1"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        opened.append(tables.load(tmp_path, path, lambda fraction: None, **options))
        return opened[-1]

    yield make
    for table in opened:
        table.connection.close()


def rows(table):
    return table.connection.execute("SELECT * FROM data ORDER BY ALL").fetchall()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_dialect_gives_the_same_table(load, delimiter, encoding, end):
    lines = ["city,price,sold", '"Zürich, ""old""\ntown",1.5,2024-01-31', "Köln,,2024-02-01", "x,-3e2,"]
    cells = "\0".join(lines).replace("\n", "¶").replace(",", delimiter).replace("\0", end).replace("¶", "\n") + end
    cells = cells.replace(f"Zürich{delimiter}", "Zürich,")
    table = load(cells.encode(encoding))
    assert table.rows == 3
    assert sorted(map(str, rows(table))) == sorted(
        map(
            str,
            [
                ('Zürich, "old"\ntown', 1.5, datetime.datetime(2024, 1, 31)),
                ("Köln", None, datetime.datetime(2024, 2, 1)),
                ("x", -300.0, None),
            ],
        )
    )
    assert table.issues == []


def test_numbers_and_dates_as_people_write_them(load):
    table = load('a;b;c;d\n1.234,5;"$1,200.50";31.01.2024;12 %\n0,25;$3;01.02.2024 10:30;5%\n7;;;\n')
    assert sorted(rows(table)) == [
        (0.25, 3.0, datetime.datetime(2024, 2, 1, 10, 30), 5.0),
        (7.0, None, None, None),
        (1234.5, 1200.5, datetime.datetime(2024, 1, 31), 12.0),
    ]


def test_times_as_databases_export_them(load):
    table = load("n,day\n1,2024-01-31 10:00:00.123456+00\n2,2024-02-01 10:00:00.1234567\n3,2024-02-02 10:00:00-05\n")
    assert [(day.day, day.hour) for _n, day in rows(table)] == [(31, 10), (1, 10), (2, 10)]
    assert table.issues == []


def test_few_cells_of_another_type_are_missing_and_told(load):
    body = "".join(f"{n},2024-01-{n % 28 + 1:02}\n" for n in range(3000))
    table = load("n,day\n" + body + "many,2024-13-77\n")
    assert table.issues == [
        "n: 1 cells are no number and count as missing",
        "day: 1 cells are no date and count as missing",
    ]
    assert table.ask("SELECT count(*) AS a, count(n) AS b, count(day) AS c FROM data") == {
        "a": 3001,
        "b": 3000,
        "c": 3000,
    }


def test_a_column_that_turns_to_text_later_is_text(load):
    table = load("n,m\n" + "1,2\n" * 2000 + "x,3\n" * 1000)
    assert [column.type for column in table.columns] == ["text", "number"]
    assert table.ask("SELECT count(n) AS n FROM data") == {"n": 3000}


def test_what_is_not_finite_is_missing(load):
    table = load("n,day\n" + "1,2024-01-31\n" * 30 + "1e999,infinity\n")
    assert table.ask("SELECT count(n) AS n, max(n) AS most, count(day) AS days FROM data") == {
        "n": 30,
        "most": 1.0,
        "days": 30,
    }


@pytest.mark.parametrize("late", [False, True])
def test_blanks_around_a_cell_are_no_part_of_it(load, late):
    before = "1,2,x,2024-01-31\n" * (2000 if late else 0)
    table = load(f'a, b, c, day\n{before}1, 2.5 , NA ,  2024-02-01\n2,    , "x", 2024-02-01\n3, 7 ,  x, \n')
    assert [column.type for column in table.columns] == ["number", "number", "text", "date"]
    assert table.issues == []
    query = "SELECT count(b) AS b, sum(b) AS sum, count(day) AS day FROM data WHERE a > 1 OR b = 2.5"
    assert table.ask(query) == {"b": 2, "sum": 9.5, "day": 2}
    assert late or table.ask("SELECT count(c) AS c, count(DISTINCT c) AS texts FROM data") == {"c": 2, "texts": 1}


def test_a_padded_number_may_have_thousands(load):
    table = load('n, m\n1, "1,250.5"\n2, "2,000"\n')
    assert table.ask("SELECT max(m) AS most, sum(m) AS sum FROM data") == {"most": 2000.0, "sum": 3250.5}


def test_what_stands_before_the_table_is_no_row(load):
    table = load("\r\nsep=;\r\nname;price\r\nAnn;1,5\r\nBob;2,5\r\n")
    assert rows(table) == [("Ann", 1.5), ("Bob", 2.5)]


def test_a_broken_byte_is_told(load):
    table = load(b"name,n\n" + "Zoë,1\n".encode() * 9 + b"\xff,2\n")
    assert table.issues == ["some bytes are no UTF-8; \ufffd stands for them"]
    assert table.ask("SELECT name, count(*) AS rows FROM data GROUP BY name ORDER BY rows DESC LIMIT 1") == {
        "name": "Zoë",
        "rows": 9,
    }


def test_each_statements_movement_is_told_and_progress_never_falls(monkeypatch):
    percents, told = iter([10.0, 90.0, 90.0, 20.0, 40.0, 95.0]), []
    seen = threading.Event()

    class Connection:
        def query_progress(self):
            percent = next(percents, None)
            if percent is None:
                seen.set()
            return 95.0 if percent is None else percent

    monkeypatch.setattr(tables, "WATCH_SECONDS", 0.001)
    watch = tables._Watch(Connection(), told.append)
    assert seen.wait(30)
    watch.end()
    assert told == pytest.approx([0.37, 0.93, 0.93, 0.93, 0.965])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (f"a,b,c\n1,2,3\n{SECRET},2\n", "Line 3 has 2 columns instead of 3"),
        (f"a,b,c\n1,2,3\n{SECRET},2,3,4\n", "Line 3 has 4 columns instead of 3"),
        ("a,b\n" + "1,2\n" * 1500 + f'1,"{SECRET}\n', "Line 1,502 has a quote that is opened and not closed"),
        ("a,b\n" + "1,2\n" * 1500 + f'1,"{SECRET}"x\n', "Line 1,502 has a quote"),
        ("a,b\n" + "1,2\n" * 1500 + '1,"' + f"{SECRET}\n" * 20_000 + '"\n', "Line 1,502 has a"),
        ("a,b\r\n1,2\n3,4\r\n", "malformed quotes, or mixes two kinds of line ends"),
        ("one sentence\nand no table\n", "no delimiter"),
        ("a,b\n", "no rows"),
    ],
)
def test_a_flaw_is_told_by_its_line_and_without_its_cells(load, data, words):
    with pytest.raises(JobError, match=words) as raised:
        load(data)
    assert raised.value.code is ErrorCode.bad_input
    assert SECRET not in raised.value.message
    assert len(raised.value.message) < 200


HOSTILE = [
    "\"; COPY data TO 'stolen'; --",
    "x\" FROM read_text('/etc/passwd'); --",
    "'}); ATTACH 'stolen' AS y; --",
    "VARCHAR', 'z': 'BLOB",
    "=HYPERLINK(1)",
    "{share:.1%}",
]


def test_names_and_cells_are_never_sql(load, tmp_path):
    quoted = ";".join('"' + name.replace('"', '""') + '"' for name in HOSTILE)
    table = load(quoted + "\n" + quoted + "\n" + quoted + "\n", header=True)
    assert [column.name for column in table.columns] == HOSTILE
    assert rows(table) == [tuple(HOSTILE)] * 2
    assert not (tmp_path / "stolen").exists()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('http://127.0.0.1:1/x')",
        "COPY data TO '/tmp/stolen.csv'",
        "ATTACH '/tmp/stolen.duckdb' AS stolen",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "SET memory_limit = '64GiB'",
        "EXPORT DATABASE '/tmp/stolen'",
    ],
)
def test_the_walls_hold_even_for_sql(load, query):
    table = load("a,b\n1,2\n")
    with pytest.raises(JobError):
        table.ask(query)
    with pytest.raises(duckdb.Error):
        table.connection.execute(query)


def test_a_table_outlives_its_child(load, tmp_path):
    load("a,b\n1,x\n2,y\n").keep()
    table = tables.reopened(tmp_path)
    assert (table.rows, [column.type for column in table.columns]) == (2, ["number", "text"])
    assert rows(table) == [(1.0, "x"), (2.0, "y")]
    table.connection.close()


def test_a_thousand_columns_fit_into_memory(load):
    header = ",".join(f"c{n}" for n in range(1000))
    table = load(header + "\n" + (",".join(map(str, range(1000))) + "\n") * 50)
    assert (table.rows, len(table.columns)) == (50, 1000)


def test_what_duckdb_may_hold_and_spill_has_bounds(load):
    bounds = "current_setting('memory_limit') AS memory, current_setting('max_temp_directory_size') AS disk"
    assert load("a,b\n1,2\n").ask(f"SELECT {bounds}") == {"memory": "384.0 MiB", "disk": "8.0 GiB"}
