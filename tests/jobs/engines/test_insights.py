"""Every number asked again, two ways: by its query on a table made anew from the file, and by plain Python."""

import csv
import datetime
import math
import statistics
from pathlib import Path

import duckdb
import pytest
from django.conf import settings
from PIL import Image

from jobs.engines import analysis, tables

SAMPLE = Path(settings.BASE_DIR) / "dev-samples" / "sales_demo.csv"


def analysed(folder, data):
    """The analysis of a file's bytes, and a connection with the table that its own `load` makes."""
    folder.mkdir()
    (folder / "input-1").write_bytes(data)
    table = tables.load(folder, folder / "input-1", lambda fraction: None)
    found = analysis.analyse(table)
    table.connection.close()
    (folder / "data.csv").write_bytes(data)
    other = duckdb.connect()
    other.execute(found["dialect"]["load"].replace("'data.csv'", tables.literal(str(folder / "data.csv"))))
    return found, other


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    found, other = analysed(tmp_path_factory.mktemp("sample") / "work", SAMPLE.read_bytes())
    yield found, other
    other.close()


@pytest.fixture(scope="module")
def lines():
    with open(SAMPLE, newline="") as file:
        return list(csv.DictReader(file))


def column(lines, name):
    return [float(line[name]) for line in lines if line[name]]


def asked(other, query):
    answer = other.execute(query)
    return dict(zip([part[0] for part in answer.description], map(tables.plain, answer.fetchone()), strict=True))


def alike(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == pytest.approx(expected[name]), name


def insights(found, kind):
    return [insight for insight in found["insights"] if insight["kind"] == kind]


def numbers(insight):
    (evidence,) = insight["evidence"]
    return evidence["numbers"]


def test_every_kind_of_insight_is_in_the_sample(sample):
    found, _other = sample
    kinds = {insight["kind"] for insight in found["insights"]}
    assert kinds == {"size", "trend", "correlation", "outlier", "missing", "imbalance"}


def test_every_insight_answers_the_same_when_its_query_is_asked_again(sample):
    found, other = sample
    for insight in found["insights"]:
        for evidence in insight["evidence"]:
            alike(evidence["numbers"], asked(other, evidence["query"]))


def test_every_fact_answers_the_same_when_its_query_is_asked_again(sample):
    found, other = sample
    facts = found["profile"] + found["outliers"] + found["correlations"] + found["trends"]
    assert len(facts) > 20
    for fact in facts:
        again = asked(other, fact["query"])
        alike({name: fact[name] for name in again}, again)
    for chart in found["charts"]:
        assert other.execute(chart["query"]).fetchall()


def test_the_profile_is_what_python_counts(sample, lines):
    found, _other = sample
    assert found["rows"] == len(lines)
    for entry in found["profile"]:
        cells = [line[entry["name"]] for line in lines if line[entry["name"]]]
        assert (entry["count"], entry["missing"]) == (len(cells), len(lines) - len(cells))
        assert entry["distinct"] == len(set(cells))
        if entry["type"] == "number":
            values = sorted(map(float, cells))
            assert (entry["min"], entry["max"]) == (values[0], values[-1])
            assert entry["mean"] == pytest.approx(statistics.fmean(values))
            assert entry["std"] == pytest.approx(statistics.stdev(values))
            assert entry["quartiles"] == pytest.approx(statistics.quantiles(values, n=4, method="inclusive"))
        elif entry["type"] == "text":
            assert entry["top"][0]["rows"] == max(cells.count(cell) for cell in set(cells))


def test_outliers_are_what_python_counts(sample, lines):
    for insight in insights(sample[0], "outlier"):
        values = column(lines, insight["columns"][0])
        low, _median, high = statistics.quantiles(values, n=4, method="inclusive")
        lower, upper = low - 1.5 * (high - low), high + 1.5 * (high - low)
        beyond = [value for value in values if not lower <= value <= upper]
        expected = {"lower": lower, "upper": upper, "outliers": len(beyond), "count": len(values)}
        alike(numbers(insight), expected | {"lowest": min(beyond), "highest": max(beyond)})
        assert f"{len(beyond)} of {len(values)} values" in insight["text"]


def test_correlations_are_what_python_counts(sample, lines):
    for insight in insights(sample[0], "correlation"):
        pairs = [[float(line[name]) for name in insight["columns"]] for line in lines]
        alike(numbers(insight), {"r": statistics.correlation(*zip(*pairs, strict=True)), "count": len(pairs)})


def test_trends_are_what_python_counts(sample, lines):
    for insight in insights(sample[0], "trend"):
        months: dict[str, list[float]] = {}
        for line in lines:
            months.setdefault(line["date"][:7], []).append(float(line[insight["columns"][0]]))
        means = [statistics.fmean(months[month]) for month in sorted(months)]
        line = statistics.linear_regression(range(1, len(means) + 1), means)
        found = numbers(insight)
        assert (found["periods"], found["first"], found["last"]) == pytest.approx((24, means[0], means[-1]))
        assert found["change"] == pytest.approx(line.slope)
        assert found["r"] == pytest.approx(statistics.correlation(range(len(means)), means))


def test_missing_and_imbalance_are_what_python_counts(sample, lines):
    (missing,) = insights(sample[0], "missing")
    empty = sum(not line["rating"] for line in lines)
    alike(numbers(missing), {"missing": empty, "rows": len(lines), "share": empty / len(lines)})
    (uneven,) = insights(sample[0], "imbalance")
    web = sum(line["channel"] == "web" for line in lines)
    alike(numbers(uneven), {"value": "web", "rows": web, "share": web / len(lines)})


def test_the_charts_are_pictures(sample, tmp_path):
    found, _other = analysed(tmp_path / "work", SAMPLE.read_bytes())
    assert {chart["kind"] for chart in found["charts"]} == {"line", "histogram", "bars", "heat map"}
    for chart in found["charts"]:
        with Image.open(tmp_path / "work" / chart["name"]) as picture:
            assert (picture.format, picture.size) == ("PNG", (800, 450))
            assert len(picture.getcolors(100_000)) > 5, "something is drawn"


def test_the_same_file_gives_the_same_analysis_and_pictures(sample, tmp_path):
    again, _other = analysed(tmp_path / "work", SAMPLE.read_bytes())
    assert [i["text"] for i in again["insights"]] == [i["text"] for i in sample[0]["insights"]]
    analysed(tmp_path / "third", SAMPLE.read_bytes())
    for chart in again["charts"]:
        assert (tmp_path / "work" / chart["name"]).read_bytes() == (tmp_path / "third" / chart["name"]).read_bytes()


def test_sketches_of_large_tables_are_near(sample, tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.engines.insights.EXACT_ROWS", 0)
    monkeypatch.setattr("jobs.engines.insights.EXACT_QUARTILES", 0)
    found, _other = analysed(tmp_path / "work", SAMPLE.read_bytes())
    for near, exact in zip(found["profile"], sample[0]["profile"], strict=True):
        assert near["query"] != exact["query"]
        assert near["distinct"] == pytest.approx(exact["distinct"], rel=0.1)
        if exact["type"] == "number":
            assert near["quartiles"] == pytest.approx(exact["quartiles"], rel=0.05, abs=0.02)


EDGES = {
    "one row": "a,b\n1,x\n",
    "all missing": "a,b\n,NA\n,NA\n",
    "constant": "a,b,c\n" + "5,5,x\n" * 30,
    "only text": "a,b\nx,y\nz,w\n",
    "huge": "a,b\n1e308,-1e308\n-1e308,1e308\n1e308,1e308\n",
    "dates only": "a,b\n2024-01-01,2024-02-01\n2024-01-02,2024-02-03\n",
    "same name": 'a,A,"a (2)"\n1,2,3\n4,5,6\n',
    "old dates": "d,v\n" + "".join(f"{year:04}-01-01,{year}\n" for year in range(1, 3000, 100)),
    "braces": 'k,{x}\n1,"{0}"\n' + '2,"{0}"\n' * 20 + "3,b\n",
    "long": "k,v\n" + f"1,{'z' * 5000}\n" * 3,
}


@pytest.mark.parametrize("name", EDGES)
def test_small_and_odd_tables_are_analysed_all_the_same(tmp_path, name):
    found, other = analysed(tmp_path / "work", EDGES[name].encode())
    for insight in found["insights"]:
        assert len(insight["text"]) < 500
        for evidence in insight["evidence"]:
            alike(evidence["numbers"], asked(other, evidence["query"]))
    for entry in found["profile"]:
        assert all(len(row["value"]) <= 100 for row in entry.get("top", ()))
        assert all(not isinstance(value, float) or math.isfinite(value) for value in entry.values())


def test_row_numbers_are_no_measure(tmp_path):
    start = datetime.date(2024, 1, 1)
    body = "".join(f"{n},{start + datetime.timedelta(n)},{n % 7}\n" for n in range(400))
    found, _other = analysed(tmp_path / "work", ("id,day,v\n" + body).encode())
    assert [entry["name"] for entry in found["profile"] if entry["sequence"]] == ["id"]
    assert all("id" not in insight["columns"] for insight in found["insights"])


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1+x", "@SUM(A1)", "\tx", "\rx", " =1"])
def test_no_cell_of_the_profile_is_a_formula(tmp_path, cell):
    top = [{"value": cell, "rows": 1, "share": 1.0}]
    analysis.write_profile(tmp_path / "p.csv", [{"name": cell, "type": "text", "count": 1, "min": -1.5, "top": top}])
    with open(tmp_path / "p.csv", newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["name"] == line["most_frequent"] == f"'{cell}"
    assert line["min"] == "-1.5", "numbers stay numbers"
