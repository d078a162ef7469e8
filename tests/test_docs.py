"""The documents say what there is: every setting, error code, kind, Beat entry and command; every link leads somewhere;
what README shows works."""

import ast
import re
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import get_commands

from jobs import kinds, upkeep
from jobs.errors import ErrorCode
from jobs.kinds import base
from tests import media_files
from tests.jobs.kinds.rig import Rig, validated

ROOT = Path(settings.BASE_DIR)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CLIP = f"upload:{0:032}"
READ_BY = {"env.str", "env.int", "env.float", "env.bool", "env.list", "seconds", "whole", "os.environ.get"}
BUILT_IN = [name for name in kinds.names() if type(kinds.get(name)).__module__ in kinds.BUILT_IN]


def page(name: str) -> str:
    return (ROOT / name).read_text()


def settings_read() -> set[str]:
    """Names of environment variables that jobsite/settings.py reads."""
    calls = [node for node in ast.walk(ast.parse(page("jobsite/settings.py"))) if isinstance(node, ast.Call)]
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


def test_the_example_environment_names_only_settings():
    named = re.findall(r"^# ([A-Z_]+)=", page(".env.example"), re.MULTILINE)
    assert named
    assert {name.removesuffix("_FILE") for name in named} <= settings_read()


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
