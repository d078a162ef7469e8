"""Procfile and systemd units start what `manage.py up` starts."""

import re
import shlex
from configparser import ConfigParser
from pathlib import Path

import pytest
from django.conf import settings

from jobsite import supervisor

ROOT = Path(settings.BASE_DIR)
UNITS = ROOT / "deploy" / "systemd"
PROCFILE = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())


def unit(name: str) -> ConfigParser:
    parsed = ConfigParser(interpolation=None)
    parsed.optionxform = str
    parsed.read_string((UNITS / f"{name}.service").read_text())
    return parsed


def options(command: list[str]) -> set[str]:
    """Its words but for what each platform chooses: addresses and the worker's name."""
    chosen = {"--host", "--port", "-n"}
    return {word for before, word in zip(["", *command], command, strict=False) if before not in chosen}


@pytest.mark.parametrize("name", PROCFILE)
def test_each_process_is_the_same_in_all_three(name):
    kept_up = next(process.command for process in supervisor.processes() if process.name == name)
    of_procfile = shlex.split(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", PROCFILE[name]))
    service = unit(f"jobsite-{name}")["Service"]
    values = dict(word.split("=", 1) for word in service["Environment"].split())
    of_unit = shlex.split(re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], service["ExecStart"]))
    assert of_procfile.pop(0) == f"JOBSITE_PROCESS={name}" == f"JOBSITE_PROCESS={values['JOBSITE_PROCESS']}"
    assert [word.replace("%%", "%").removeprefix("/opt/jobsite/.venv/bin/") for word in of_unit] == of_procfile
    assert kept_up[1] == "-m" and options(kept_up[2:]) == options(of_procfile)


@pytest.mark.parametrize("path", sorted(UNITS.glob("*.service")), ids=lambda path: path.stem)
def test_a_unit_hands_jobs_back_in_time_and_survives_a_job(path):
    service = unit(path.stem)["Service"]
    assert (service["Restart"], service["KillMode"], service["User"]) == ("always", "mixed", "jobsite")
    assert service["OOMPolicy"] == "continue", "else a job that ate the memory ends the platform with it"
    grace = settings.CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT + supervisor.GRACE_ADDED
    assert float(service["TimeoutStopSec"]) > 2 * grace


def test_there_is_a_unit_for_each_process_and_one_for_all():
    assert {path.stem for path in UNITS.glob("*.service")} == {"jobsite", *(f"jobsite-{name}" for name in PROCFILE)}
