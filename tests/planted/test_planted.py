"""Break the code on purpose, one thing at a time: the suite must turn red. A suite that has not caught its planted bugs
is not evidence."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from django.conf import settings

pytestmark = [pytest.mark.planted, pytest.mark.timeout(240)]

LIFECYCLE = "jobs/lifecycle.py"
BUGS = {
    "no attempt in the WHERE": (
        [(LIFECYCLE, "status=Status.RUNNING, attempt=lease.attempt)", "status=Status.RUNNING)")],
        ["tests/jobs/test_lifecycle.py", "-k", "older_attempt"],
    ),
    "refund in a second transaction": (
        [
            (
                LIFECYCLE,
                "        ledger.refund_many(",
                "        (lambda booked: transaction.on_commit(lambda: ledger.refund_many(booked), robust=True))(",
            )
        ],
        ["tests/jobs/test_cleanup.py", "-k", "poisoned"],
    ),
    "no UNIQUE on REFUND": (
        [
            ("tokens/models.py", 'reverses = models.OneToOneField("self"', 'reverses = models.ForeignKey("self"'),
            (
                "tokens/migrations/0001_initial.py",
                r're:"reverses",\s+models\.OneToOneField',
                '"reverses", models.ForeignKey',
            ),
            (
                "tokens/migrations/triggers_sqlite_install.sql",
                "    OR EXISTS (SELECT 1 FROM tokens_transaction WHERE reverses_id = NEW.reverses_id)\n",
                "",
            ),
        ],
        ["tests/tokens/test_ledger.py", "tests/tokens/test_models.py", "-k", "refund"],
    ),
    "publish before commit": (
        [
            (
                "jobs/runner.py",
                '                fault("publish.before_commit")\n',
                "                for row in stored:\n                    row.save()\n"
                "                stored = []\n"
                '                fault("publish.before_commit")\n',
            )
        ],
        ["tests/jobs/test_runner.py", "-k", "cancel_at_any_point"],
    ),
    "heartbeat that ignores 0 rows": (
        [(LIFECYCLE, "    if not _held(lease).update(heartbeat_at", "    if _held(lease).update(heartbeat_at")],
        ["tests/jobs/test_lifecycle.py", "-k", "can_write_nothing"],
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the source; each bug is planted into its own copy of this one's files."""
    target = tmp_path_factory.mktemp("planted") / "source"
    # not what other processes write meanwhile, a compiled module by another name first
    ignored = shutil.ignore_patterns(".git", ".venv", "var*", ".*_cache", ".hypothesis", "__pycache__")
    shutil.copytree(settings.BASE_DIR, target, ignore=ignored)
    return target


def run(folder, tests) -> subprocess.CompletedProcess:
    env = dict(os.environ)
    if env.get("DATABASE_URL", "").startswith("postgres"):
        env["DATABASE_URL"] = re.sub(r"/[^/?]*(\?.*)?$", r"/planted\1", env["DATABASE_URL"])
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:randomly", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize("bug", BUGS)
def test_the_suite_turns_red(copy, bug):
    changes, tests = BUGS[bug]
    originals = {}
    try:
        for name, old, new in changes:
            file = copy / name
            before = originals.setdefault(name, file.read_text())
            text = file.read_text()
            after = re.sub(old[3:], new, text) if old.startswith("re:") else text.replace(old, new)
            assert after != text, f"{name} no longer has what this bug replaces"
            assert before is not None
            file.write_text(after)
        outcome = run(copy, tests)
    finally:
        for name, text in originals.items():
            (copy / name).write_text(text)
    assert outcome.returncode == 1 and " failed" in outcome.stdout, outcome.stdout[-3000:] + outcome.stderr[-2000:]


def test_without_a_bug_they_are_green(copy):
    """It is the bug that turns them red, not the copy."""
    outcome = run(
        copy, ["tests/jobs/test_lifecycle.py", "tests/jobs/test_cleanup.py", "-k", "older_attempt or poisoned"]
    )
    assert outcome.returncode == 0, outcome.stdout[-3000:] + outcome.stderr[-2000:]
