"""The doctor finds what would hurt later, says what to do, and is silent where all is well."""

import json
import os
import re
import subprocess
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core import checks
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.functions import Now
from django_celery_beat.models import PeriodicTask

from jobs import artifacts, doctor, intake, upkeep
from jobs.doctor import broker as message_broker
from jobs.doctor import database, host, media, site
from jobs.engines import ffmpeg, process
from jobs.engines.fake_runpod import FakeRunpod
from jobs.models import Tick
from jobsite import broker
from tests.waiting import until

pytestmark = pytest.mark.django_db


def ids(look) -> set[str]:
    """What an examination finds; every finding says what to do."""
    found = list(look())
    assert all(message.hint for message in found)
    return {message.id.removeprefix("jobsite.") for message in found}


@pytest.fixture
def own(settings):
    """own(NAME=value) sets settings of JOBSITE."""

    def change(**values):
        settings.JOBSITE = {**settings.JOBSITE, **values}

    return change


# --- broker --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "production", "found"),
    [
        ("redis+socket:///tmp/jobsite/broker.sock", True, set()),
        ("redis://127.0.0.1:6379/0", False, set()),
        ("redis://127.0.0.1:6379/0", True, {"E102"}),
        ("redis://10.0.0.9:6379/0", False, {"E102", "W103"}),
        ("redis://:long-random-password@10.0.0.9:6379/0", True, {"W103"}),
        ("rediss://:long-random-password@10.0.0.9:6379/0", True, set()),
        ("amqp://guest:guest@rabbit//", True, {"E102", "W103"}),
        ("amqps://jobsite:long-random-password@rabbit//", True, set()),
        ("memory://", False, {"E101"}),
    ],
)
def test_who_reaches_the_broker(url, production, found, settings):
    """S33: a broker on TCP without a password takes messages from anyone who reaches the port."""
    settings.CELERY_BROKER_URL, settings.PRODUCTION = url, production
    assert ids(message_broker.access) == found


@pytest.fixture
def running_broker(settings, tmp_path, celery_url):
    settings.HOME = settings.LOG_DIR = tmp_path
    settings.RUNTIME = tmp_path / "run"
    settings.BROKER_SOCKET = settings.RUNTIME / "broker.sock"
    server = subprocess.Popen(broker.command(), stdin=subprocess.DEVNULL)
    celery_url(f"redis+socket://{settings.BROKER_SOCKET}")
    try:
        until(lambda: "W105" not in ids(message_broker.durability), seconds=20)  # it answers
        yield
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def celery_url(settings, monkeypatch):
    """celery_url(url): what the settings name and what Celery's app connects to."""
    from celery import current_app

    def change(url: str) -> None:
        settings.CELERY_BROKER_URL = url
        monkeypatch.setattr(current_app.conf, "broker_url", url)
        monkeypatch.setattr(current_app.conf, "broker_read_url", url)

    return change


def test_the_broker_itself_is_asked_whether_it_keeps_its_messages(running_broker, settings):
    import redis

    assert ids(message_broker.durability) == set()
    with redis.Redis(unix_socket_path=str(settings.BROKER_SOCKET)) as client:
        client.config_set("appendonly", "no")
        client.config_set("maxmemory-policy", "allkeys-lru")
    assert ids(message_broker.durability) == {"W106", "W107"}


def test_a_broker_that_does_not_answer_is_told(celery_url, tmp_path):
    celery_url(f"redis+socket://{tmp_path}/nobody.sock")
    assert ids(message_broker.durability) == {"W105"}
    celery_url("amqp://jobsite:secret@127.0.0.1:1//")
    assert ids(message_broker.durability) == {"I104"}


# --- database and watchmen -----------------------------------------------------------------------------------------


@pytest.fixture
def safe_database(monkeypatch):
    """The tests' PostgreSQL runs without fsync, for speed."""
    if connection.vendor == "postgresql":
        ask = database._ask
        monkeypatch.setattr(database, "_ask", lambda sql: "on" if sql.startswith("SHOW") else ask(sql))


def test_an_unsafe_database_is_told(safe_database, monkeypatch):
    assert ids(database.durability) == set()
    answers = {"PRAGMA journal_mode": "delete", "PRAGMA synchronous": 1}
    monkeypatch.setattr(database, "_ask", lambda sql: answers.get(sql, "off"))
    monkeypatch.setattr(database, "_network", lambda file: "nfs4")
    expected = {"E110", "I111", "E112"} if connection.vendor == "sqlite" else {"E113", "E114", "W115"}
    assert ids(database.durability) == expected


def test_local_disks_are_no_network():
    assert database._network(Path("/proc/self/x")) == ""


def test_network_disks_are_found_whatever_they_are_called(tmp_path, monkeypatch):
    """A mount point may hold spaces and bytes that are no UTF-8; where systemd mounts on demand, there are two."""
    monkeypatch.setattr(database, "MOUNTS", tmp_path / "mounts")
    place = f"{tmp_path}/our disk"
    escaped = os.fsencode(place).replace(b" ", b"\\040")
    lines = [
        b"/dev/vda / ext4 rw 0 0",
        b"systemd-1 %s autofs rw 0 0" % escaped,
        b"nas:/x %s nfs4 rw 0 0" % escaped,
        b"stick /media/M\xfcll vfat rw 0 0",
    ]
    (tmp_path / "mounts").write_bytes(b"\n".join(lines))
    assert database._network(Path(place, "jobsite.sqlite3")) == "nfs4"
    (tmp_path / "link").symlink_to(place)
    assert database._network(tmp_path / "link" / "jobsite.sqlite3") == "nfs4"
    assert database._network(Path("/srv/jobsite.sqlite3")) == ""


def test_clocks_that_part_are_told(monkeypatch):
    assert ids(database.clocks) == set()
    monkeypatch.setattr(database.time, "time", lambda: 1_000_000_000.0)
    assert ids(database.clocks) == {"W116"}


def test_migrations_that_wait_are_told():
    assert ids(database.migrations) == set()
    MigrationRecorder.Migration.objects.filter(app="jobs").order_by("-id").first().delete()
    assert ids(database.migrations) == {"E117"}


def test_watchmen_that_do_not_run_are_told():
    upkeep.install()
    Tick.objects.update(ran_at=Now())
    assert ids(database.watchmen) == set()
    Tick.objects.filter(name="dispatch_due").update(ran_at=None)
    PeriodicTask.objects.filter(name="sweep_storage").update(enabled=False)
    assert ids(database.watchmen) == {"W118", "W119"}


def test_a_database_that_is_away_is_a_finding():
    def refuse(*_):
        raise OperationalError("gone")

    with connection.execute_wrapper(refuse):
        found = {message.id for one in doctor.EXAMINATIONS for message in one()}
    assert "jobsite.W100" in found


# --- this host -----------------------------------------------------------------------------------------------------


def test_files_that_everybody_can_read_are_told(settings, tmp_path, monkeypatch):
    """Seen without the look at the folders above: a home of 0700 is reported, though nobody comes in."""
    monkeypatch.setattr(host, "_closed_above", lambda file: False)
    settings.HOME = tmp_path
    (tmp_path / "secret_key").touch(mode=0o600)
    monkeypatch.setitem(settings.DATABASES["default"], "NAME", "")
    assert ids(host.secrets) == set()
    (tmp_path / "secret_key").chmod(0o644)
    assert ids(host.secrets) == {"E120"}
    monkeypatch.undo()
    tmp_path.chmod(0o700)
    assert host._closed_above(tmp_path / "secret_key")


@pytest.mark.parametrize(("production", "found"), [(False, "W121"), (True, "E121")])
def test_secrets_that_can_be_guessed_are_told(settings, own, production, found):
    settings.PRODUCTION = production
    own(METRICS_TOKEN="aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
    assert ids(host.secrets) == {found}
    own(METRICS_TOKEN="r2nEw0c9Yb1Vx7Qk3TfLz8Hs")
    assert ids(host.secrets) == set()


def test_a_secrets_file_that_cannot_be_looked_at_is_no_finding(monkeypatch):
    """Another program's variable, say; `manage.py up` asks all this before it starts."""
    monkeypatch.setenv("THEIR_KEY_FILE", "k" * 300)  # as root nothing is forbidden; a name may be too long
    assert ids(host.secrets) == set()


def test_root_is_told(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert ids(host.rights) == {"W122"}
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert ids(host.rights) == set()


def test_a_full_disk_is_told(own, monkeypatch):
    assert ids(host.disk) == set()
    monkeypatch.setattr(artifacts, "free_bytes", lambda: 1_000_000_000)
    own(DISK_FREE_BYTES=200_000_000)
    assert ids(host.disk) == {"W124"}
    own(DISK_FREE_BYTES=2_000_000_000)
    assert ids(host.disk) == {"E123"}
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_files=100, f_favail=1))
    assert ids(host.disk) == {"E123", "W125"}


def test_a_storage_that_refuses_is_told(monkeypatch):
    assert ids(host.storage) == set()

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(default_storage, "save", refuse)
    assert ids(host.storage) == {"E126"}


def test_versions_that_differ_are_told(monkeypatch):
    assert ids(host.versions) == set()
    monkeypatch.setattr(host, "version", lambda name: "5.4.0" if name == "kombu" else "99.9")
    monkeypatch.setattr(host.sqlite3, "sqlite_version_info", (3, 30, 0))
    monkeypatch.setattr(host.shutil, "which", lambda name: None)
    old = {"E129"} if connection.vendor == "sqlite" else set()
    assert ids(host.versions) == {"E127", "I128", "W130"} | old


# --- media ---------------------------------------------------------------------------------------------------------


def test_an_ffmpeg_that_lacks_parts_is_told(own, tmp_path, monkeypatch):
    assert ids(media.parts) == set()
    monkeypatch.setitem(media.WANTED, "-filters", ["drawtext", "no_such_filter"])
    assert ids(media.parts) == {"E141"}
    own(FFMPEG=str(tmp_path / "none"))
    assert ids(media.parts) == {"E140"}


@pytest.mark.parametrize("does", ["", "[ $1 = -version ] && echo ffmpeg version 1 || exit 1"])
def test_another_program_in_ffmpegs_place_is_told(own, tmp_path, does):
    other = tmp_path / "ffmpeg"
    other.write_text(f"#!/bin/sh\n{does}\n")
    other.chmod(0o755)
    own(FFMPEG=str(other))
    assert ids(media.parts) == {"E140"}


def test_every_filter_that_the_engines_use_is_looked_for():
    """The names before = and the encoders after -c in the engines' texts that FFmpeg knows as such."""
    folder = Path(ffmpeg.__file__).parent
    text = "".join(file.read_text() for file in [*folder.glob("*.py"), *(folder.parent / "kinds").glob("*.py")])
    known = media._has(ffmpeg.bundled(), "-filters")
    used = set(re.findall(r"[\"\],;\s]([a-z][a-z0-9]+)=", text)) & known
    assert used - set(media.FILTERS) - NOT_OURS == set()
    assert media._has(ffmpeg.bundled(), "-encoders") >= set(re.findall(r'"-c:[va]", "(\w+)"', text)) - {"copy"}


NOT_OURS = {"copy", "hue", "movie", "reverse"}  # keyword arguments of Python that are called like filters


def test_missing_walls_are_told(settings, own, monkeypatch):
    monkeypatch.setattr(intake, "wall_gaps", list)
    monkeypatch.setattr(process, "walls", lambda: process.Walls({}, []))
    assert ids(media.walls) == set()
    monkeypatch.setattr(process, "walls", lambda: process.Walls({}, ["unshare"]))
    monkeypatch.setattr(intake, "wall_gaps", lambda: ["no network namespace"])
    assert ids(media.walls) == {"W143"}
    settings.PRODUCTION = True
    assert ids(media.walls) == {"E142"}
    own(MEDIA_WALLS="best_effort")
    assert ids(media.walls) == {"W143"}


def test_engines_without_what_they_need_are_told(settings, own, monkeypatch, tmp_path):
    assert ids(media.engines) == set()
    own(UPSCALER_MODEL=str(tmp_path / "none.onnx"), RENDER_ENGINE="runpod")
    monkeypatch.setattr(media.importlib.util, "find_spec", lambda name: None)
    assert ids(media.engines) == {"E144", "E145", "E146"}
    own(UPSCALER_MODEL="", RENDER_ENGINE="preview")
    settings.PRODUCTION = True
    assert ids(media.engines) == {"I147"}


def test_runpod_is_asked_how_its_endpoint_is(own):
    assert ids(media.runpod) == set()
    with FakeRunpod() as fake:
        own(
            RENDER_ENGINE="runpod", RUNPOD_BASE_URL=fake.base_url, RUNPOD_ENDPOINT_ID=fake.name, RUNPOD_API_KEY=fake.key
        )
        assert ids(media.runpod) == set()
        assert fake.calls("/health") == 1
        own(RUNPOD_API_KEY="wrong")
        assert ids(media.runpod) == {"W148"}
    assert ids(media.runpod) == {"W148"}


# --- the site ------------------------------------------------------------------------------------------------------

HTTPS = {"PRODUCTION": True, "SECURE": True, "SITE_URL": "https://jobs.example.com"}
HTTP = {"PRODUCTION": True, "SECURE": False, "SITE_URL": "http://jobs.example.com"}


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, set()),
        ({"DEBUG": True}, {"E150"}),
        (HTTPS | {"TRUST_PROXY": True}, set()),
        (HTTPS, {"I154"}),
        (HTTPS | {"ALLOWED_HOSTS": ["*"], "TRUST_PROXY": True}, {"E151"}),
        (HTTPS | {"SECURE_SSL_REDIRECT": True}, {"E153", "I154"}),
        (HTTPS | {"TRUST_PROXY": True, "HOST": "0.0.0.0"}, {"W155"}),
        (HTTP, {"W152", "I156"}),
        (HTTP | {"SITE_URL": "http://jobs.example.com:8000"}, {"W152"}),
    ],
)
def test_the_address_and_the_proxy_fit(values, found, settings):
    """Row 4: one public URL; the usual mistakes are named."""
    for name, value in values.items():
        setattr(settings, name, value)
    assert ids(site.address) == found


def test_an_operator_who_hears_nothing_is_told(settings, own):
    assert ids(site.told) == set()
    settings.PRODUCTION, settings.EMAIL_HOST = True, "localhost"
    assert ids(site.told) == {"W157", "W158", "I159"}
    settings.EMAIL_HOST = "smtp.example.com"
    own(ALERT_EMAIL="op@example.com", PING_URL="https://hc.example.com/1")
    assert ids(site.told) == set()


# --- the command, the deployment check, the document --------------------------------------------------------------


def run(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("doctor", *arguments, stdout=out, no_color=True)
    except CommandError as refused:
        return refused.returncode, out.getvalue()
    return 0, out.getvalue()


def test_the_command_says_what_to_do_and_ends_by_its_level(settings, celery_url, safe_database):
    celery_url("redis+socket:///tmp/nobody-here.sock")
    settings.DEBUG = False
    settings.SECURE, settings.TRUST_PROXY, settings.HOST = True, True, "0.0.0.0"
    code, said = run()
    assert (code, "jobsite.W155" in said) == (0, True)
    assert "→ HOST=127.0.0.1 with the proxy on this host" in said
    assert "ok       migrations" in said
    code, said = run("--json", "--fail-level", "WARNING")
    assert code == 1
    answer = json.loads(said)
    assert answer["ok"] is False
    (finding,) = [finding for finding in answer["findings"] if finding["id"] == "jobsite.W155"]
    assert finding["level"] == "warning"
    assert finding["docs"] == "docs/operations.md#doctor"


def test_they_are_checks_of_a_deployment_and_of_nothing_else(settings):
    settings.ALLOWED_HOSTS, settings.PRODUCTION = ["*"], True
    assert "jobsite.E151" in {found.id for found in checks.run_checks(include_deployment_checks=True)}
    assert not any(found.id.startswith("jobsite.") for found in checks.run_checks())


def test_the_document_lists_every_finding_and_no_other(settings):
    folder = Path(doctor.__file__).parent
    written = set(re.findall(r'"([EWI]1\d\d)"', "".join(file.read_text() for file in folder.glob("*.py"))))
    page = (settings.BASE_DIR / "docs/operations.md").read_text()
    assert written == set(re.findall(r"^\| `([EWI]1\d\d)` \|", page, re.MULTILINE))
