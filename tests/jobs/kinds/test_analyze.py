"""ANALYZE as the runner runs it: children, files, the model and what is done without it, hostile tables."""

import json
import logging
import random
import resource
import time

import psutil
import pytest
from django.conf import settings as django_settings

from jobs.engines import llm
from jobs.errors import ErrorCode, JobError
from jobs.kinds.analyze import FALLBACK, Analyze, ask_model, idle
from jobs.kinds.base import Abort
from tests.fake_llm import KEY, FakeLLM
from tests.jobs.kinds.rig import Rig, refused, validated

KIND = Analyze()
FILE = "upload:" + "0" * 32
SALES = (django_settings.BASE_DIR / "dev-samples" / "sales_demo.csv").read_bytes()
RULES = {"size", "trend", "correlation", "outlier", "missing", "imbalance"}


@pytest.fixture
def rig(tmp_path):
    """rig(bytes of the file, **params) → the run of an analysis."""

    def make(data=SALES, **params):
        made = Rig(tmp_path / "work", validated(KIND, file=FILE, **params), {FILE: tmp_path / "work" / "input-1"})
        made.inputs[FILE].write_bytes(data if isinstance(data, bytes) else data.encode())
        return made

    return make


@pytest.fixture
def model(settings):
    """model(server, …) → settings for a job that asks it."""

    def make(server, **options):
        quick = {"RETRY_INITIAL_DELAY": 0.01, "RETRY_MAX_DELAY": 0.05, "LLM_TIMEOUT_SECONDS": 5.0}
        own = {"LLM_KEY": KEY, "LLM_BASE_URL": server.base_url, "LLM_MODEL": "deepseek/deepseek-r1"}
        settings.JOBSITE = settings.JOBSITE | quick | own | options

    return make


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    """What the children find in the sample, once."""
    work = tmp_path_factory.mktemp("rules")
    (work / "input-1").write_bytes(SALES)
    run = Rig(work, validated(KIND, file=FILE), {FILE: work / "input-1"})
    KIND.run(run)
    return run


@pytest.fixture
def found(rules):
    """A fresh copy of it, before the model is asked."""
    return result(rules)


def result(rig):
    return json.loads(rig.outputs["result.json"].read_bytes())


@pytest.mark.parametrize(
    "params", [{}, {"file": "../x"}, {"file": "http://x/y.csv"}, {"file": FILE, "header": "maybe"}, {"file": 5}]
)
def test_refuses_by_field(params):
    assert set(refused(KIND, **params)) == {"header" if "header" in params else "file"}


@pytest.mark.parametrize(("size", "price"), [(1, 3), (10_000_000, 3), (10_000_001, 6), (1_000_000_000, 300)])
def test_price_is_by_ten_megabytes_begun(settings, size, price):
    settings.JOBSITE = settings.JOBSITE | {"PRICE_ANALYZE_MB": 3}
    params = validated(KIND, file=FILE)
    assert KIND.price(params) + KIND.price_of_inputs({FILE: size}) == price


def test_without_a_model_rules_tell(rules):
    run, found = rules, result(rules)
    assert (found["model"], found["issues"], found["rows"]) == (None, [], 974)
    assert {insight["kind"] for insight in found["insights"]} == RULES
    assert {insight["by"] for insight in found["insights"]} == {"rules"}
    assert set(run.outputs) == {"result.json", "profile.csv", *(chart["name"] for chart in found["charts"])}
    assert run.stages == ["parsing", "processing"]
    assert run.fractions == sorted(run.fractions)


def test_with_a_model_its_insights_come_first_and_invented_numbers_never(rig, model):
    run = rig()
    with FakeLLM("500", "ok") as server:
        model(server)
        KIND.run(run)
    found = result(run)
    assert (found["model"], found["issues"]) == ("deepseek/deepseek-r1", [])
    assert found["insights"][0]["by"] == "model"
    assert "123456789" not in json.dumps(found)
    assert {insight["kind"] for insight in found["insights"]} == RULES | {"model"}
    told = json.dumps(server.requests[0][1])
    assert "shipping_cost" in told
    assert "2024-03-05" not in told, "no row of the file"


@pytest.mark.parametrize(
    ("behaviour", "calls"),
    [("401", 1), ("429", 2), ("500", 2), ("not_json", 2), ("prose", 2), ("redirect", 1), ("endless", 1), ("bomb", 1)],
)
def test_a_model_that_fails_leaves_the_rules_and_an_issue(rig, found, model, caplog, behaviour, calls):
    caplog.set_level(logging.DEBUG)
    run = rig()
    with FakeLLM(behaviour) as server:
        model(server)
        ask_model(run, found)
    assert found["issues"] == [FALLBACK] == ["llm_failure_fallback"]
    assert found["insights"]
    assert {insight["by"] for insight in found["insights"]} == {"rules"}
    assert len(server.requests) == calls
    assert run.failures == ["llm"] * calls, "each call that failed counts for the breaker"
    assert ("LLM call (deepseek/deepseek-r1): Attempt 2/2" in caplog.messages) is (calls == 2)
    assert KEY not in caplog.text + json.dumps(found)


def test_a_model_that_hangs_is_left_at_the_deadline(rig, found, model):
    with FakeLLM("drip") as server:
        model(server, LLM_TIMEOUT_SECONDS=0.3)
        ask_model(rig(), found)
    assert found["issues"] == [FALLBACK]


def test_a_model_whose_breaker_is_open_is_not_asked(rig, found, model, caplog):
    run = rig()
    run.open_for = 500.0
    with FakeLLM() as server:
        model(server)
        ask_model(run, found)
    assert found["issues"] == [FALLBACK]
    assert server.requests == []
    assert "Circuit breaker is OPEN. Using fallback." in caplog.messages


def test_a_cancel_while_the_model_thinks_ends_the_run(rig, found, model):
    run = rig()
    with FakeLLM("silent") as server:
        model(server, LLM_TIMEOUT_SECONDS=60.0)
        run.abort_when = lambda rig: bool(server.requests)
        began = time.monotonic()
        with pytest.raises(Abort):
            ask_model(run, found)
    assert time.monotonic() - began < 30


def test_a_cancel_kills_the_child(rig):
    run = rig()
    run.abort_when = lambda rig: bool(rig.pids)
    with pytest.raises(Abort):
        KIND.run(run)
    (pid,) = run.pids
    assert not psutil.pid_exists(pid)
    assert run.outputs == {}


def test_a_slow_rehearsal_idles_and_can_be_cancelled(rig):
    run = rig()
    began = time.monotonic()
    idle(run, 0.2)
    assert time.monotonic() - began >= 0.2
    run.abort_when = lambda rig: time.monotonic() - began > 0.4
    with pytest.raises(Abort):
        idle(run, 60.0)


def test_the_header_may_be_told(rig):
    run = rig("5,6\n7,8\n", header="yes")
    KIND.run(run)
    assert [entry["name"] for entry in result(run)["profile"]] == ["5", "6"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("ragged", b"a,b,c\n" + b"1,2,3\n" * 2000 + b"1,2\n", "Line 2,002 has 2 columns instead of 3"),
        ("NUL", b"a,b\n1,2\n" * 1000 + b"\x00,1\n", "NUL"),
        ("UTF-16 NUL", ("a,b\n" + "1,2\n" * 9999 + "\0,1\n").encode("utf-16"), "NUL"),
        ("10,000 columns", (b",".join(b"%d" % n for n in range(10_000)) + b"\n") * 3, "10,000 columns"),
        ("100 MB line", b"a,b\n1,2\n" + b"x" * 100_000_000, "line of more than"),
        ("100 MB in quotes", b"a,b\n" + b"1,2\n" * 2000 + b'1,"' + b"x\n" * 50_000_000, "quote that is"),
        ("binary", random.Random(1).randbytes(100_000), "no delimiter"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_hostile_tables_are_refused_soon_and_in_bounded_memory(rig, name, data, words):
    """S10: at most 10 s and 512 MiB."""
    most = []
    run = rig(data)

    def look(rig):
        for pid in rig.pids:
            try:
                most.append(psutil.Process(pid).memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        return False

    run.abort_when = look
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(JobError, match=words) as raised:
        KIND.run(run)
    assert raised.value.code is ErrorCode.bad_input
    assert len(raised.value.message) < 200
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # not the wall's seconds, which a busy machine stretches
    assert used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime < 10
    assert max(most, default=0) < 512 * 1024**2
    assert run.outputs == {}


@pytest.mark.parametrize("planted", ["analysis.json", "result.json"])
def test_a_link_that_a_child_laid_is_neither_read_nor_written_through(rig, tmp_path, planted):
    """A child that its file has taken over owns the work folder, and nothing else."""
    secret = tmp_path / "secret.json"
    secret.write_text('{"insights": [], "issues": []}')
    run = rig()

    def tool(module, task, **_options):
        (run.workdir / "analysis.json").unlink(missing_ok=True)
        (run.workdir / "analysis.json").write_text('{"insights": [], "issues": []}')
        (run.workdir / planted).unlink(missing_ok=True)
        (run.workdir / planted).symlink_to(secret)
        return {"analysis": "analysis.json", "profile": "profile.csv", "charts": ["../secret.json"]}

    run.tool = tool
    with pytest.raises((JobError, FileExistsError)):
        KIND.run(run)
    assert run.outputs == {}
    assert secret.read_text() == '{"insights": [], "issues": []}'


def test_formulas_are_text(rig):
    run = rig('name;v\n"=HYPERLINK(""http://x"")";1\n"=HYPERLINK(""http://x"")";2\n+1+x;3\n')
    KIND.run(run)
    assert "'=HYPERLINK" in run.outputs["profile.csv"].read_text()
    assert result(run)["profile"][0]["top"][0]["value"] == '=HYPERLINK("http://x")'


def test_the_prompt_of_a_thousand_columns_stays_small(found):
    entry = found["profile"][-1]
    found["profile"] = [entry | {"name": f"column {n}"} for n in range(1000)]
    assert len(llm.prompt_of(llm.facts_of(found))) < 60_000
