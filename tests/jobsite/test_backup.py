"""docs/operations.md, Backup and restore: its lines, as they stand, against a platform that is lost in between."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from tests import postgres

pytestmark = pytest.mark.django_db

SECTION = re.search(
    r"^## Backup and restore\n(.*?)^## ", Path("docs/operations.md").read_text(), re.MULTILINE | re.DOTALL
)[1]
BLOCKS = re.findall(r"(?:^    .+\n)+", SECTION, re.MULTILINE)
STORED = "storage/jobs/1/1/film.mp4"


def test_there_are_two_backups_and_two_restores():
    assert len(BLOCKS) == 4


@pytest.fixture
def shell(tmp_path):
    """shell("…") runs lines against a platform of its own, with the database's programs on its path; its output."""
    home, backup = tmp_path / "home", tmp_path / "backup"
    for folder in (home, backup):
        folder.mkdir()
    own = {"JOBSITE_HOME": str(home), "BACKUP": str(backup), "PYTHONPATH": str(settings.BASE_DIR)}
    path = [str(Path(sys.executable).parent), str(postgres.WHEEL / "pginstall" / "bin")]
    environment = {**os.environ, **own, "PATH": os.pathsep.join([*path, os.environ["PATH"]])}
    environment.pop("DATABASE_URL", None)
    if connection.vendor == "postgresql":
        environment["DATABASE_URL"] = fresh_database()

    def run(lines: str) -> str:
        command = ["bash", "-euc", lines]
        done = subprocess.run(
            command, cwd=settings.BASE_DIR, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.home, run.environment = home, environment
    return run


def fresh_database() -> str:
    """The URL of a new, empty database on the tests' server."""
    url = postgres.configured()
    name = f"backup_{os.urandom(4).hex()}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
    return url.rpartition("/")[0] + f"/{name}"


@pytest.mark.timeout(300)  # Django starts ten times
def test_what_is_lost_comes_back_whole(shell):
    shell("python manage.py migrate -v0; python manage.py user add ann --tokens 50 --key")
    kept = shell.home / STORED
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"film")
    before = shell("python manage.py export ledger")
    assert "ann" in before and "50" in before
    secret = (shell.home / "secret_key").read_bytes()
    offset = 0 if connection.vendor == "sqlite" else 1
    shell(BLOCKS[offset])

    shutil.rmtree(shell.home)
    shell.home.mkdir()
    if connection.vendor == "postgresql":
        shell.environment["DATABASE_URL"] = fresh_database()
    shell(BLOCKS[2 + offset])
    assert shell("python manage.py export ledger") == before
    assert (shell.home / STORED).read_bytes() == b"film" and (shell.home / "secret_key").read_bytes() == secret
    change = "from tokens.models import Transaction; Transaction.objects.update(amount=1)"
    with pytest.raises(AssertionError, match="append-only"):
        shell(f"python manage.py shell -c '{change}'")
