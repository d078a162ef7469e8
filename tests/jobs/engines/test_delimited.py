"""What a delimited file is, told from its bytes; what is no table, and what cannot be taken."""

import time

import pytest

from jobs.engines import delimited
from jobs.errors import ErrorCode, JobError

PLAIN = "name,price,sold\nAnn,1.5,2024-01-31\nBob,20,2024-02-01\n"


def look(tmp_path, data, **options):
    path = tmp_path / "file"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return delimited.look(path, **options)


def types(dialect):
    return [(column.name, column.type) for column in dialect.columns]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    ("encoding", "found"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"),
     ("utf-16-be", "utf-16-be"), ("latin-1", "cp1252"), ("cp1252", "cp1252")],
)  # fmt: skip
def test_every_dialect_in_every_encoding(tmp_path, delimiter, encoding, found):
    text = PLAIN.replace("Bob", "Zoë").replace(",", delimiter)
    dialect = look(tmp_path, text.encode(encoding))
    assert (dialect.encoding, dialect.delimiter, dialect.header) == (found, delimiter, True)
    assert types(dialect) == [("name", "text"), ("price", "number"), ("sold", "date")]


@pytest.mark.parametrize(
    ("text", "header"),
    [
        (PLAIN, True),
        (PLAIN.partition("\n")[2], False),
        ("a,b\nx,y\nz,w\n", True),
        ("1,2\n3,4\n", False),
        ("red,blue\nred,green\nred,red\n", False),
        ("2024-01-01,5\n2024-01-02,6\n", False),
        ("name,name\nx,1\n", True),
        (",price\nx,1\n", True),
    ],
)
def test_the_header_is_found(tmp_path, text, header):
    assert look(tmp_path, text).header is header
    assert look(tmp_path, text, header=not header).header is not header


def test_names_are_printable_and_none_comes_twice(tmp_path):
    header = ["", "Price", "price", "a\x1b[1mb", "x" * 300, ' "; DROP TABLE data; --']
    text = ";".join('"' + name.replace('"', '""') + '"' for name in header) + "\n" + ";".join("123456") + "\n"
    names = [column.name for column in look(tmp_path, text, header=True).columns]
    assert names == ["column 1", "Price", "price (2)", "a [1mb", "x" * 100, '"; DROP TABLE data; --']


@pytest.mark.parametrize(
    ("cells", "type", "form"),
    [
        (["1", "2.5", "-3e4", "+.5", "0"], "number", "plain"),
        (["1,234", "5", "12,345,678.9"], "number", "thousands"),
        (["1.234,5", "0,25", "7"], "number", "comma"),
        (["$1,200", "$ 5", "$7.50"], "number", "thousands+signs"),
        (["12 %", "5%"], "number", "plain+signs"),
        (["007", "012"], "text", ""),
        (["1234567890123456", "1234567890123457"], "text", ""),
        (["2024-01-31", "2024-02-01T10:00:00Z"], "date", "iso"),
        (["2024-01-31 10:00:00.123456+00", "2024-01-31 10:00:00-05"], "date", "iso"),  # as PostgreSQL exports them
        (["2024-01-31 10:00:00.1234567", "2024-01-31T10:00:00.123456789Z"], "date", "iso"),  # SQL Server, .NET, Go
        (["31/01/2024", "01/02/2024 10:30"], "date", "%d/%m/%Y"),
        (["01/31/2024", "02/01/2024"], "date", "%m/%d/%Y"),
        (["01/02/2024", "03/04/2024"], "date", "%m/%d/%Y"),
        (["01.02.2024", "03.04.24"], "date", "%d.%m.%y"),
        (["2024/1/31"], "date", "%Y/%m/%d"),
        (["32/13/2024"], "text", ""),
        (["1/2/2024", "1.2.2024"], "text", ""),
        (["", "NA", "-"], "text", ""),
        (["", "NA", "5"], "number", "plain"),
        (["=1+1", "@x"], "text", ""),
    ],
)
def test_what_a_column_holds(cells, type, form):
    assert delimited._column("x", cells) == delimited.Column("x", type, form)


def test_with_semicolons_a_comma_is_a_decimal_one(tmp_path):
    kilos, prices = look(tmp_path, "kg;price\n1,250;$1,200.50\n2,375;$3\n").columns
    assert (kilos.form, prices.form) == ("comma", "thousands+signs")


@pytest.mark.parametrize(
    ("lead", "skip"), [("\n\n", 2), ("\r\n  \r\n", 2), ("\r", 1), ("sep=,\r\n", 1), ('"sep=;"\n', 1), ("\ufeff\n", 1)]
)
def test_what_stands_before_the_table_is_skipped(tmp_path, lead, skip):
    end = lead.replace("\ufeff", "")[-1] if lead.endswith("\r") else "\n"
    dialect = look(tmp_path, lead + PLAIN.replace("\n", end))
    assert (dialect.skip, dialect.header) == (skip, True)
    assert types(dialect) == [("name", "text"), ("price", "number"), ("sold", "date")]


@pytest.mark.parametrize(
    ("data", "encoding", "flawed"),
    [
        (b"\xef\xbb\xbfname,n\nZo\xc3\xab,1\n\xff,2\n", "utf-8-sig", True),
        (b"name,n\n" + b"Zo\xc3\xab,1\n" * 9 + b"\xff,2\n", "utf-8", True),
        (b"name,n\n" + b"Zo\xc3\xab,1\n" * 9 + b"1,Zo\xc3", "utf-8", True),  # cut within a letter
        (b"name,n\n" + b"Zo\xc3\xab,1\n" * 60_000 + b"\xff,2\n", "utf-8", True),
        (b"name,n\n" + b"Zo\xeb,1\n" * 9, "cp1252", False),
        (b"name,n\nAnn,1\n2,Zo\xeb", "cp1252", False),
    ],
)
def test_one_broken_byte_does_not_make_another_encoding(tmp_path, data, encoding, flawed):
    dialect = look(tmp_path, data)
    assert (dialect.encoding, dialect.flawed) == (encoding, flawed)


def test_a_cell_may_be_as_long_as_a_line(tmp_path):
    cell = '"' + "x," * 200_000 + '"'
    assert types(look(tmp_path, f"a,b\n1,{cell}\n2,x\n")) == [("a", "number"), ("b", "text")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"just a sentence\nand another\n",
        b"one\n1\n2\n",
        b"<svg viewBox='0,0,1,1'>\n<a b='1,2'/>\n</svg>",
        b'{"a": 1,\n"b": 2}',
        b'[{"a": 1},\n{"b": 2}]',
        b"#EXTM3U,1\nfile,2\n",
        b"%PDF-1.7,1\nx,2\n",
        b"ffconcat,version 1.0\nfile,x\n",
        b"\x00\x01\x02,\x03\n" * 50,
        b"PK\x03\x04\x00\x00,\n1,2\n",
    ],
)
def test_what_is_no_table(tmp_path, data):
    with pytest.raises(delimited.NoTable):
        look(tmp_path, data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (PLAIN.encode() * 5000 + b"x\x00,1,2\n", "NUL character"),
        (b"a,b\n" + b"1,2\n" * 100 + b"x" * 1_000_001 + b",2\n", "line of more than 1,000,000 bytes"),
        (b"a,b\r" + b"x" * 1_000_001 + b",2\r", "line of more than 1,000,000 bytes"),
        ((",".join(map(str, range(10_000))) + "\n").encode() * 3, "10,000 columns"),
        (b'a,b\n1,"2\n3,4\n', "quote that is opened"),
        (b'"a,b\n1,2\n3,4\n', "quote that is opened"),
        (b"name,price\n", "no rows"),
    ],
)
def test_what_cannot_be_taken_says_why(tmp_path, data, words):
    with pytest.raises(JobError, match=words) as raised:
        look(tmp_path, data)
    assert raised.value.code is ErrorCode.bad_input
    assert len(raised.value.message) < 200


def test_one_line_of_100_mb_is_refused_at_once(tmp_path):
    began = time.process_time()  # not what a busy machine and its disk add
    with pytest.raises(JobError, match="line of more than"):
        look(tmp_path, b"a,b\n" + b"1," * 50_000_000)
    assert time.process_time() - began < 5
