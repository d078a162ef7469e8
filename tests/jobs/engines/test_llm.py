"""The language model's client against a real server that goes wrong, and what of an answer is believed."""

import json
import time

import pytest

from jobs.engines import llm
from tests.fake_llm import KEY, FakeLLM

FACTS = {
    "f1": {"kind": "size", "columns": [], "numbers": {"rows": 974}, "query": "SELECT 1"},
    "f2": {
        "kind": "trend",
        "columns": ["price 2024", "sold_at"],
        "numbers": {"change": -0.2466, "r": 0.77, "first": 1234.5, "share": 0.219712, "since": "2024-03-01T00:00:00"},
        "query": "SELECT 2",
    },
}


def model(server, seconds=30.0):
    return llm.Model(server.base_url, "deepseek/deepseek-r1", KEY, seconds)


def ask(server, seconds=30.0, **options):
    return llm.complete(model(server, seconds), llm.SYSTEM, llm.prompt_of(FACTS), **options)


def test_asks_as_openai_documents_it_and_tells_no_query():
    with FakeLLM() as server:
        found = llm.believed(ask(server), FACTS)
    (headers, body) = server.requests[0]
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body["model"] == "deepseek/deepseek-r1"
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert "SELECT" not in json.dumps(body)
    evidence = [{"query": "SELECT 1", "numbers": {"rows": 974}}]
    assert found == [
        {"kind": "model", "text": "The model saw rows 974.", "columns": [], "by": "model", "evidence": evidence}
    ]


@pytest.mark.parametrize(
    ("behaviour", "again"),
    [
        ("401", False),
        ("429", True),
        ("500", True),
        ("not_json", True),
        ("no_choices", True),
        ("prose", True),
        ("redirect", False),
        ("bomb", False),
        ("endless", False),
        ("hang_up", True),
    ],
)
def test_every_bad_answer_is_a_failure_without_secrets(behaviour, again):
    with FakeLLM(behaviour) as server, pytest.raises(llm.Failed) as raised:
        llm.believed(ask(server), FACTS)
    assert isinstance(raised.value, llm.Unavailable) is again
    assert KEY not in str(raised.value) + repr(raised.value)
    assert len(server.requests) == 1, "no redirect is followed"


@pytest.mark.parametrize("behaviour", ["drip", "drip_body", "silent", "never_closes"])
def test_the_deadline_is_for_the_whole_call(behaviour):
    with FakeLLM(behaviour) as server, pytest.raises(llm.Unavailable, match=r"within 0\.6 s"):
        began = time.monotonic()
        ask(server, seconds=0.6)
    assert time.monotonic() - began < 20


def test_no_server_and_no_address():
    with FakeLLM() as server:
        pass
    with pytest.raises(llm.Unavailable, match="ConnectError"):
        ask(server)
    for address, key in [("http://[", KEY), ("http://xn--/", KEY), (server.base_url, "Schlüssel")]:
        with pytest.raises(llm.Failed):
            llm.complete(llm.Model(address, "m", key), "", "")


class Stop(BaseException):
    pass


def test_a_waiting_call_ends_when_the_job_does():
    began = time.monotonic()

    def check():
        if time.monotonic() - began > 0.3:
            raise Stop

    with FakeLLM("silent") as server, pytest.raises(Stop):
        ask(server, seconds=60, check=check)
    assert time.monotonic() - began < 20


def test_retry_after_is_kept():
    with FakeLLM("429") as server, pytest.raises(llm.Unavailable) as raised:
        ask(server)
    assert raised.value.retry_after == 0.0


def test_the_key_is_not_shown():
    assert KEY not in repr(llm.Model("http://x", "m", KEY))


@pytest.mark.parametrize(
    ("text", "facts", "kept"),
    [
        ("The table has 974 rows.", ["f1"], True),
        ("The table has 975 rows.", ["f1"], False),
        ("The table has 974 rows.", ["f2"], False),  # a number of a fact that it does not name
        ("The table has 974 rows.", ["f1", "f9"], False),
        ("The table has 974 rows.", [], False),
        ("The table is large.", ["f1"], True),
        ("The mean began at 1,234.5.", ["f2"], True),
        ("The mean began at about 1235.", ["f2"], True),
        ("The mean began at 1236.", ["f2"], False),
        ("It falls by 0.25 (r = 0.77), 22.0% of all.", ["f2"], True),
        ("It falls by 0.24.", ["f2"], False),
        ("price 2024 falls since 2024-03-01.", ["f2"], True),
        ("price 2024 falls since 2023.", ["f2"], False),
        ("Half a million: .5", ["f1"], False),
        ("x" * 401, ["f1"], False),
        ("", ["f1"], False),
        (974, ["f1"], False),
        ("fine", [["f1"]], False),
        ("fine", {"f1": 1}, False),
    ],
)
def test_only_numbers_that_were_given_are_believed(text, facts, kept):
    answer = {"insights": [{"text": text, "facts": facts}, {"text": "Rows: 974", "facts": ["f1"]}]}
    assert len(llm.believed(json.dumps(answer), FACTS)) == 1 + kept


@pytest.mark.parametrize(
    "content", ["[]", "null", "7", '{"insights": 3}', '{"insights": [1, null, "x"]}', "{", "[" * 9999]
)
def test_nonsense_is_no_insight(content):
    with pytest.raises(llm.Unavailable):
        llm.believed(content, FACTS)


def test_a_fenced_answer_is_read_and_control_characters_go():
    answer = json.dumps({"insights": [{"text": "a\x1b[m\nb", "facts": ["f1"]}] * 20})
    found = llm.believed(f"```json\n{answer}\n```", FACTS)
    assert [insight["text"] for insight in found] == ["a [m b"] * llm.MOST_INSIGHTS


def test_texts_of_few_rows_are_not_told():
    entry = {"name": "name", "type": "text", "count": 9, "missing": 0, "distinct": 2, "query": "q", "top_query": "t"}
    top = [{"value": "often", "rows": 5, "share": 0.8}, {"value": "Ann Example", "rows": 1, "share": 0.2}]
    lone = {"query": "q", "numbers": {"value": "Ann Example", "rows": 1, "share": 0.9}}
    insight = {"kind": "imbalance", "columns": ["name"], "evidence": [lone]}
    told = llm.prompt_of(llm.facts_of({"profile": [entry | {"top": top}], "insights": [insight]}))
    assert "often" in told
    assert "Ann Example" not in told
