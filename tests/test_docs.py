"""The documents say what there is: every setting, error code, kind, Beat entry and command; every link leads somewhere;
what README shows works."""

import argparse
import ast
import re
from pathlib import Path

import pytest
import yaml
from django.conf import settings
from django.core.management import get_commands, load_command_class

from jobs import kinds, upkeep
from jobs.errors import ErrorCode
from jobs.kinds import base
from jobsite import __version__
from tests import media_files
from tests.jobs.kinds.rig import Rig, validated

ROOT = Path(settings.BASE_DIR)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [*PAGES, *sorted((ROOT / "docs" / "moving").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
FENCES = {  # what stands in fences, and where it is run; curl lines: tests/client/test_snippets.py and tests/systems
    "README.md": {"python"},  # below
    "own-kind.md": {"python"},  # tests/client/test_own_kind.py
    "metrics.md": {"yaml"},  # below
}
CLIP = f"upload:{0:032}"
READ_BY = {"env.str", "env.int", "env.float", "env.bool", "env.list", "seconds", "whole", "networks", "os.environ.get"}
BUILT_IN = [name for name in kinds.names() if type(kinds.get(name)).__module__ in kinds.BUILT_IN]


def page(name: str) -> str:
    return (ROOT / name).read_text()


def settings_read() -> set[str]:
    """Names of environment variables that the settings read."""
    files = ("jobsite/environment.py", "jobsite/log_settings.py", "jobsite/own_settings.py", "jobsite/settings.py")
    calls = [node for file in files for node in ast.walk(ast.parse(page(file))) if isinstance(node, ast.Call)]
    first = [call.args[0] for call in calls if ast.unparse(call.func) in READ_BY]
    return {name.value for name in first if isinstance(name, ast.Constant)}


def rows(text: str) -> set[str]:
    """The first cells of all table rows that are one code word."""
    return set(re.findall(r"^\| `([^`|]+)` \|", text, re.MULTILINE))


def test_every_setting_is_documented_and_no_other():
    read = settings_read()
    assert len(read) > 40
    assert read - {"ENV_FILE"} == rows(page("docs/settings.md"))
    assert "`ENV_FILE`" in page("docs/settings.md")


def test_the_example_environment_names_every_setting_and_no_other():
    named = re.findall(r"^# ([A-Z0-9_]+)=", page(".env.example"), re.MULTILINE)
    of_up = {"ENV_FILE", "JOBSITE_PROCESS"}  # one names the file itself, the other is set by `manage.py up`
    assert {name.removesuffix("_FILE") for name in named} == settings_read() - of_up


def test_every_error_code_is_documented_and_no_other():
    assert rows(page("docs/errors.md")) == set(ErrorCode.__members__)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_kind_is_documented_with_its_params_and_no_others(name):
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", page("docs/kinds.md"), re.MULTILINE | re.DOTALL)
    assert section, f"docs/kinds.md has no section {name}"
    assert rows(section[1]) == set(kinds.get(name).Params().fields)


def test_every_beat_entry_is_documented():
    assert {name for name in upkeep.schedule() if f"`{name}`" not in page("docs/operations.md")} == set()


def test_every_command_is_documented():
    ours = {name for name, app in get_commands().items() if app in ("jobs", "jobsite", "tokens")}
    assert {"up", "demo"} <= ours
    told = "".join(document.read_text() for document in PAGES)
    assert {name for name in ours if f"manage.py {name}" not in told} == set()


def options(parser) -> set[str]:
    """The options of a command and of its verbs, and the verbs themselves."""
    known = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            known |= {*action.choices}.union(*map(options, action.choices.values()))
    return known


@pytest.mark.parametrize("document", SNIPPETS, ids=lambda document: document.name)
def test_every_command_line_names_a_command_and_options_that_it_takes(document):
    commands = get_commands()
    for name, rest in re.findall(r"manage\.py ([a-z_]+)([^`#\n;&…]*)", document.read_text()):
        assert name in commands, f"manage.py {name}"
        known = options(load_command_class(commands[name], name).create_parser("manage.py", name))
        assert set(re.findall(r"--[a-z][a-z-]*", rest)) <= known, f"manage.py {name}{rest}"
        if verb := re.match(r" ([a-z|]+)\b", rest) if "add" in known or "pause" in known else None:
            assert set(verb[1].split("|")) <= known, f"manage.py {name}{rest}"


@pytest.mark.parametrize("document", SNIPPETS, ids=lambda document: document.name)
def test_every_make_line_names_a_target(document):
    targets = set(re.findall(r"^([a-z-]+):", page("Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", document.read_text(), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("document", SNIPPETS, ids=lambda document: document.name)
def test_a_new_sort_of_snippet_is_given_a_test(document):
    fenced = set(re.findall(r"^ *```(\w+)", document.read_text(), re.MULTILINE))
    assert fenced == FENCES.get(document.name, set()) or document.parent.name == "moving"


def test_the_settings_shown_as_lines_are_settings():
    shown = {name for document in PAGES for name in re.findall(r"^ +([A-Z_]{4,})=", document.read_text(), re.MULTILINE)}
    foreign = {"AWS_ACCESS_KEY_ID"}  # boto3's own
    assert {name.removesuffix("_FILE") for name in shown} - foreign <= settings_read()


def test_prometheus_snippet_is_yaml_that_scrapes_us():
    (snippet,) = re.findall(r"```yaml\n(.*?)```", page("docs/metrics.md"), re.DOTALL)
    (scrape,) = yaml.safe_load(snippet)["scrape_configs"]
    assert scrape["job_name"] == "jobsite" and "metrics_path" not in scrape  # its default is ours


def test_each_version_says_how_to_upgrade_to_it():
    released = re.findall(r"^## (\d[\w.]*)", page("CHANGELOG.md"), re.MULTILINE)
    assert released[0] == __version__
    assert re.findall(r"^## To (\d[\w.]*)", page("docs/upgrading.md"), re.MULTILINE) == released


@pytest.mark.parametrize("document", PAGES, ids=lambda document: document.name)
def test_links_and_named_files_are_there(document):
    text = document.read_text()
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text) + re.findall(r'src="(?!https?:)([^"]+)"', text)
    assert [link for link in links if not (document.parent / link).exists()] == []
    named = re.findall(r"`((?:tests|jobs|jobsite|tokens|docs|bench|templates)/[\w/.-]+)(?:::(\w+))?`", text)
    for file, test in named:
        assert (ROOT / file).exists(), file
        assert not test or f"def {test}(" in page(file), f"{file}::{test}"


def test_the_kind_that_readme_adds_works(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "REGISTRY", {**base.REGISTRY})
    (source,) = re.findall(r"```python\n(.*?)```", page("README.md"), re.DOTALL)
    exec(compile(source, "README.md", "exec"), {})
    (name,) = set(base.REGISTRY) - set(kinds.names())
    kind = base.REGISTRY[name]
    params = validated(kind, clip=CLIP)
    run = Rig(tmp_path / "work", params, {CLIP: tmp_path / "work" / "in.mp4"})
    run.inputs[CLIP].write_bytes(media_files.clip())
    kind.run(run)
    assert kind.price(params) >= 1
    assert [path.stat().st_size > 0 for path in run.outputs.values()] == [True]
