"""The settings as a process meets them, with nothing in its environment but what the test says."""

import os
import re
import runpy
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from jobsite.settings import runtime_folder

ROOT = Path(__file__).parents[2]
SECRET = "kL3!x9vQ-2mZ7pT0wR5yB8nC1dF4gH6jK_sA+uE=iO~qW^aMzX&V"


@pytest.fixture
def environment(tmp_path):
    """The environment of a process of its own: exactly this and `variables`."""

    def make(**variables: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "JOBSITE_HOME": str(tmp_path / "home"),
            "ENV_FILE": os.devnull,
            **variables,
        }

    return make


@pytest.fixture
def read(environment, monkeypatch):
    """The settings, read anew under the given variables. (Running the file is what importing it does, only faster.)"""

    def values(**variables: str) -> dict:
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", environment(**variables))
            for module in ("jobsite.environment", "jobsite.log_settings", "jobsite.own_settings"):
                patch.delitem(sys.modules, module, raising=False)
            return runpy.run_path(str(ROOT / "jobsite" / "settings.py"))

    return values


@pytest.fixture
def manage(environment):
    """Runs `manage.py …`."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
        command = [sys.executable, ROOT / "manage.py", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True)

    return run


TELL = """
import os
from django.conf import settings
for path in (settings.RUNTIME, settings.STORAGE_ROOT):
    print(os.fsencode(path).hex())
"""
PRODUCTION = {"SITE_URL": "https://jobs.example.com"}


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"SITE_URL": "https://*"}, "SITE_URL must look like"),  # it would become ALLOWED_HOSTS
        ({"SITE_URL": "https://.example.com"}, "SITE_URL must look like"),
        ({"DEBUG": "maybe"}, "DEBUG must be one of"),
        ({"DEBUG": ""}, "DEBUG is set but empty"),
        ({"PORT": "eighty"}, "PORT is not a valid int"),
        ({"PORT": "70000"}, "PORT must be at most 65535"),
        ({"PORT": "0"}, "PORT must be at least 1"),
        ({"SIGN_UP": "on"}, "SIGN_UP must be off or open"),
        ({"SIGN_UP": "open"}, "SIGN_UP=open needs EMAIL_URL"),
        ({"SIGN_UP_TOKENS": "-1"}, "SIGN_UP_TOKENS must be at least 0"),
        ({"SIGN_UP_TOKENS": "1000001"}, "SIGN_UP_TOKENS must be at most 1000000"),
        ({"SECRET_KEY": ""}, "SECRET_KEY is set but empty"),
        ({"SECRET_KEY": "  "}, "SECRET_KEY is set but empty"),
        ({"SECRET_KEY_FILE": ""}, "SECRET_KEY_FILE is set but empty"),
        ({"SECRET_KEY_FILE": "/nowhere/key"}, "SECRET_KEY_FILE cannot be read"),
        ({"SECRET_KEY_FILE": "/dev/null"}, "SECRET_KEY is set but empty"),
        ({"SITE_URL": ""}, "SITE_URL is set but empty"),
        ({"SITE_URL": "jobs.example.com"}, "SITE_URL must look like"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is set but empty"),
        ({"DATABASE_URL": "mysql://a:b@c/d"}, "DATABASE_URL must be"),
        ({"DATABASE_URL": "nonsense"}, "DATABASE_URL must be"),
        ({"CELERY_BROKER_URL": ""}, "CELERY_BROKER_URL is set but empty"),
        ({"STORAGE_URL": "ftp://bucket"}, "STORAGE_URL must be"),
        ({"STORAGE_URL": "s3://"}, "STORAGE_URL must name a bucket"),
        ({"STORAGE_URL": "s3://AKIA:secret@bucket"}, "STORAGE_URL must hold no keys"),
        ({"STORAGE_URL": "s3://bucket/../x"}, "STORAGE_URL must name a prefix"),
        ({"STORAGE_URL": "s3://bucket?endpont=x"}, "STORAGE_URL must not say endpont"),
        ({"STORAGE_URL": "s3://bucket?endpoint=minio:9000"}, "STORAGE_URL must say endpoint like"),
        ({"STORAGE_URL": "s3://bucket", "AWS_ACCESS_KEY_ID": "AKIA"}, "AWS_ACCESS_KEY_ID and"),
        ({"RETENTION_DAYS_RENDER": "-1"}, "RETENTION_DAYS_RENDER must be"),
        ({"STORAGE_URL": "file://relative/path"}, "STORAGE_URL must be"),
        ({"JOB_HEARTBEAT_TIMEOUT": "nan"}, "JOB_HEARTBEAT_TIMEOUT"),
        ({"JOB_HEARTBEAT_TIMEOUT": "-1"}, "JOB_HEARTBEAT_TIMEOUT must be"),
        ({"JOB_CLEANUP_BATCH": "0"}, "JOB_CLEANUP_BATCH must be at least 1"),
        ({"RETRY_FACTOR": "0.5"}, "RETRY_FACTOR must be"),
        ({"LLM_BASE_URL": "openrouter.ai/api/v1"}, "LLM_BASE_URL must look like"),
        ({"LLM_RETRY_ATTEMPTS": "0"}, "LLM_RETRY_ATTEMPTS must be at least 1"),
        ({"MEDIA_WALLS": "off"}, "MEDIA_WALLS must be"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL must be"),
        ({"SQLITE_SYNCHRONOUS": "OFF"}, "SQLITE_SYNCHRONOUS must be"),
        ({"JOBSITE_PROCESS": "../x"}, "JOBSITE_PROCESS must be"),
        # URLs that cannot be read: the sentence names the setting and repeats nothing of a password
        ({"DATABASE_URL": "postgres://u:c4n4ry/x@db/jobsite"}, "DATABASE_URL is no URL"),
        ({"DATABASE_URL": "postgres://u:p@db:port/jobsite"}, "DATABASE_URL is no URL"),
        ({"EMAIL_URL": "smtp+tls://u:c4n4ry/x@mail:587"}, "EMAIL_URL is no URL"),
        ({"EMAIL_URL": "smtp://u:c4n4ry[x@mail:25"}, "EMAIL_URL is no URL"),
        ({"EMAIL_URL": "mail.example.com"}, "EMAIL_URL must look like"),
        ({"SITE_URL": "http://[::1"}, "SITE_URL is no URL"),
        ({"SITE_URL": "https://jobs.example.com:99999"}, "SITE_URL is no URL"),
        ({"STORAGE_URL": "s3://c4n4ry[bucket"}, "STORAGE_URL is no URL"),
        ({"STORAGE_URL": "s3://bucket?endpoint=http://minio:port"}, "STORAGE_URL is no URL"),
        ({"CELERY_BROKER_URL": "redis://:c4n4ry/x@broker:6379/0"}, "CELERY_BROKER_URL is no URL"),
        ({"CELERY_BROKER_URL": "redis://:c4n4ry[x@broker:6379/0"}, "CELERY_BROKER_URL is no URL"),
        ({"CELERY_BROKER_URL": "broker:6379"}, "CELERY_BROKER_URL must look like"),
        ({"PING_URL": "https://[c4n4ry"}, "PING_URL is no URL"),
        ({"ALERT_WEBHOOK_URL": "https://[c4n4ry"}, "ALERT_WEBHOOK_URL is no URL"),
        # a number with something behind it would be another number
        ({"JOB_RUN_LIMIT_MAX": "2h"}, "JOB_RUN_LIMIT_MAX is not a valid float"),
        ({"JOB_HEARTBEAT_TIMEOUT": "1,000"}, "JOB_HEARTBEAT_TIMEOUT is not a valid float"),
        ({"RETENTION_DAYS": "99999999999"}, "RETENTION_DAYS must be at most"),
        ({"RETENTION_DAYS_RENDER": "99999999999"}, "RETENTION_DAYS_RENDER must be at most"),
        ({"RETENTION_DAYS_": "3"}, "RETENTION_DAYS_ must name a kind"),  # it deleted jobs of all kinds
        ({"UPLOAD_UNUSED_HOURS": "99999999999"}, "UPLOAD_UNUSED_HOURS must be at most"),
        ({"JOBSITE_HOME": "/proc/nowhere"}, "JOBSITE_HOME cannot be used"),
        ({"JOBSITE_HOME": "/etc/passwd"}, "JOBSITE_HOME cannot be used"),
        ({"ENV_FILE": "/nowhere/env"}, "/nowhere/env cannot be read"),
        # production
        ({**PRODUCTION, "DEBUG": "1"}, "DEBUG must not be set in production"),
        ({**PRODUCTION, "SIMULATED_GPU": "1"}, "SIMULATED_GPU must not be set in production"),
        ({**PRODUCTION, "JOBSITE_FAULT": "settle.before:kill"}, "JOBSITE_FAULT must not be set in production"),
        ({**PRODUCTION, "SECRET_KEY": "short"}, "SECRET_KEY is too weak"),
        ({**PRODUCTION, "SECRET_KEY": "a" * 60}, "SECRET_KEY is too weak"),
        ({**PRODUCTION, "SECRET_KEY": "django-insecure-" + SECRET}, "SECRET_KEY is too weak"),
    ],
    ids=lambda value: " ".join(f"{k}={v[:24]}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_a_wrong_value_refuses_to_start_and_is_named(read, variables, named):
    with pytest.raises(ImproperlyConfigured, match=f"^{named}") as refused:
        read(**variables)
    assert "c4n4ry" not in "".join(traceback.format_exception(refused.value)).split("ImproperlyConfigured: ", 1)[1]


@pytest.mark.parametrize("name", ["CRON_SECRET", "METRICS_TOKEN", "SECRET_KEY"])
def test_a_secret_may_begin_with_a_dollar(read, name):
    """django-environ takes `$…` for the name of another variable, and then the default for its value."""
    values = read(**{name: f"${SECRET}", SECRET: "another"})
    assert (values | values["JOBSITE"])[name] == f"${SECRET}"


@pytest.mark.parametrize(("written", "meant"), [("1e3", 1000.0), ("2.5", 2.5), (" 7 ", 7.0)])
def test_seconds_are_the_number_that_stands_there(read, written, meant):
    assert read(JOB_HEARTBEAT_TIMEOUT=written)["JOBSITE"]["HEARTBEAT_TIMEOUT"] == meant


def test_names_in_a_list_may_stand_apart(read):
    values = read(JOBSITE_KINDS="one.kind, another.kind", CORS_ORIGINS="https://a.example, https://b.example")
    assert values["JOBSITE"]["KINDS"] == ["one.kind", "another.kind"]
    assert values["CORS_ALLOWED_ORIGINS"] == ["https://a.example", "https://b.example"]


@pytest.mark.parametrize(
    ("host", "url"),
    [("::", "http://[::1]:8000"), ("fd00::5", "http://[fd00::5]:8000"), ("0.0.0.0", "http://127.0.0.1:8000")],
)
def test_the_address_of_a_host_by_its_number(read, host, url):
    values = read(HOST=host)
    assert (values["SITE_URL"], values["PRODUCTION"]) == (url, host == "fd00::5")


def test_a_secret_key_that_a_full_disk_left_empty_is_made_anew_once(read, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "secret_key").touch(0o600)
    made = read()["SECRET_KEY"]
    assert len(made) == 64
    assert read()["SECRET_KEY"] == made


def test_the_command_line_answers_a_wrong_value_with_one_sentence(manage):
    refused = manage("up", SITE_URL="")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "SITE_URL is set but empty; give it a value or unset it.\n"


def test_the_command_line_refuses_bytes_that_are_no_text_with_one_sentence(manage):
    refused = manage("forget_user", b"b\xff")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "'b\\udcff' cannot be read as text in this locale; give it in UTF-8.\n"


@pytest.mark.parametrize("url", ["postgres://u:c4n4ry@127.0.0.1:9/x", "sqlite:////nowhere/x.sqlite3"])
@pytest.mark.parametrize("command", ["up", "user list"])
def test_the_command_line_says_without_a_database_that_there_is_none(manage, url, command):
    refused = manage(*command.split(), DATABASE_URL=url)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert re.fullmatch(r"The database does not do it: .*\. manage.py doctor says more\.\n", refused.stderr)
    assert "c4n4ry" not in refused.stderr


def test_the_command_line_ends_quietly_when_nobody_reads_on(environment):
    command = f"trap '' PIPE; {sys.executable} {ROOT / 'manage.py'} help | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_the_command_line_speaks_to_a_terminal_that_knows_ascii_alone(manage):
    said = manage("doctor", PYTHONIOENCODING="ascii")
    assert "UnicodeEncodeError" not in said.stderr
    assert r"\u2192 Run manage.py migrate." in said.stdout


def test_a_value_may_come_from_a_file_which_wins(read, tmp_path):
    (tmp_path / "key").write_text(SECRET + "\n")
    assert read(SECRET_KEY="other", SECRET_KEY_FILE=str(tmp_path / "key"))["SECRET_KEY"] == SECRET


@pytest.mark.parametrize(
    ("name", "value", "look", "expected"),
    [
        ("DATABASE_URL", "postgres://u:p@db:5433/x", lambda s: s["DATABASES"]["default"]["HOST"], "db"),
        (
            "DATABASE_URL",
            "postgres://u:p@db/x",
            lambda s: s["DATABASES"]["default"]["OPTIONS"]["tcp_user_timeout"],
            20000,
        ),
        (
            "DATABASE_URL",
            "postgres://u:p@db/x?tcp_user_timeout=5000",
            lambda s: int(s["DATABASES"]["default"]["OPTIONS"]["tcp_user_timeout"]),
            5000,
        ),
        ("DATABASE_URL", "postgres://u@%2Frun%2Fpg/x", lambda s: s["DATABASES"]["default"]["HOST"], "/run/pg"),
        ("CELERY_BROKER_URL", "redis://elsewhere:1/0", lambda s: s["EMBEDDED_BROKER"], False),
        ("STORAGE_URL", "file:///srv/a%20b", lambda s: str(s["STORAGE_ROOT"]), "/srv/a b"),
        ("SITE_URL", "https://jobs.example.com", lambda s: s["ALLOWED_HOSTS"], ["jobs.example.com"]),
    ],
)
def test_urls_also_come_from_files(read, tmp_path, name, value, look, expected):
    (tmp_path / "value").write_text(value + "\n")
    assert look(read(**{name: value})) == expected
    assert look(read(**{f"{name}_FILE": str(tmp_path / "value")})) == expected


def test_a_bucket_whose_secret_comes_from_a_file(read, tmp_path):
    (tmp_path / "aws").write_text("hush-hush\n")
    values = read(STORAGE_URL="s3://films", AWS_ACCESS_KEY_ID="AKIA", AWS_SECRET_ACCESS_KEY_FILE=str(tmp_path / "aws"))
    assert values["STORAGES"]["default"]["OPTIONS"]["secret_key"] == "hush-hush"
    assert values["STORAGE_ROOT"] is None


def test_retention_by_kind(read, tmp_path):
    (tmp_path / "days").write_text("3\n")
    values = read(RETENTION_DAYS="9", RETENTION_DAYS_RENDER="30", RETENTION_DAYS_INGEST_FILE=str(tmp_path / "days"))
    assert values["JOBSITE"]["RETENTION_DAYS"] == 9
    assert values["JOBSITE"]["RETENTION_DAYS_OF"] == {"RENDER": 30, "INGEST": 3}


def test_the_dotenv_file_is_read_and_the_environment_wins(read, tmp_path):
    (tmp_path / "env").write_text("PORT=8111\nWORKER_SLOTS=7\n")
    values = read(ENV_FILE=str(tmp_path / "env"), PORT="8222")
    assert (values["PORT"], values["WORKER_SLOTS"]) == (8222, 7)


@pytest.mark.parametrize("line", ["CRON_SECRET = c4n4ry", " CRON_SECRET=c4n4ry", "CRON_SECRET: c4n4ry"])
def test_a_line_of_the_dotenv_file_that_would_be_passed_over_is_refused_and_not_repeated(read, tmp_path, line):
    (tmp_path / "env").write_text(f"\ufeff# ours\n\nexport PORT=8111\n{line}\n")
    with pytest.raises(ImproperlyConfigured, match="line 4, must be NAME=value") as refused:
        read(ENV_FILE=str(tmp_path / "env"))
    assert "c4n4ry" not in str(refused.value)


def test_nothing_set_runs_safely_on_loopback(read, tmp_path):
    values = read()
    assert (values["DEBUG"], values["HOST"], values["PRODUCTION"]) == (False, "127.0.0.1", False)
    assert values["DATABASES"]["default"]["NAME"] == tmp_path / "home" / "jobsite.sqlite3"
    key = tmp_path / "home" / "secret_key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert read()["SECRET_KEY"] == values["SECRET_KEY"] == key.read_text()  # a second start reads what the first made


def test_the_socket_stays_short_for_a_home_of_150_bytes(read, tmp_path):
    deep = tmp_path / ("h" * (150 - len(str(tmp_path)) - 1))
    assert len(str(deep)) == 150
    assert len(str(read(JOBSITE_HOME=str(deep))["BROKER_SOCKET"])) < 100


def test_a_home_with_signs_of_urls_in_its_name(read, tmp_path):
    odd = tmp_path / "a b#c?d%41"
    values = read(JOBSITE_HOME=str(odd))
    assert values["DATABASES"]["default"]["NAME"] == odd / "jobsite.sqlite3"
    assert values["STORAGE_ROOT"] == odd / "storage"


def test_a_home_whose_name_is_no_text(read, tmp_path):
    """Made under Latin-1, or met in a locale that knows ASCII alone."""
    odd = tmp_path / os.fsdecode(b"h\xf6me")
    values = read(JOBSITE_HOME=str(odd))
    assert values["STORAGE_ROOT"] == odd / "storage"


def test_a_home_with_an_umlaut_in_a_locale_that_knows_ascii_alone(manage, tmp_path):
    home = tmp_path / "h\xf6me"
    for locale in ({}, {"LC_ALL": "C", "PYTHONUTF8": "0"}):
        told = manage("shell", "-v", "0", "-c", TELL, JOBSITE_HOME=os.fsencode(home), **locale)
        assert told.stdout.split() == [str(runtime_folder(home)).encode().hex(), os.fsencode(home / "storage").hex()]


def test_deployment_check_has_no_warnings_of_djangos_with_https_and_fails_by_ours(manage):
    """No migration is applied here, so the doctor has something to say."""
    checked = manage("check", "--deploy", "--fail-level", "WARNING", **PRODUCTION)
    assert "security." not in checked.stderr
    assert checked.returncode == 1
    assert "jobsite.E117" in checked.stderr


def test_https_makes_cookies_secure_and_hsts_long(read):
    values = read(**PRODUCTION)
    names = ["SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SESSION_COOKIE_HTTPONLY", "SECURE_HSTS_SECONDS"]
    assert [values[name] for name in names] == [True, True, True, 31_536_000]
