import json
import logging
import multiprocessing
import shutil
import sys

import pytest
from django.test import Client
from structlog.contextvars import bound_contextvars, clear_contextvars, get_contextvars

from jobsite import logs


@pytest.fixture(autouse=True)
def _about_nothing():
    clear_contextvars()


def record(message: str, *arguments, error: bool = False) -> logging.LogRecord:
    return logging.LogRecord("jobs", logging.INFO, __file__, 1, message, arguments, sys.exc_info() if error else None)


def test_a_record_is_one_line_whatever_is_in_it():
    line = logs.LineFormatter().format(
        record("prompt %r %s", "a", "x\r\n2026 ERROR forged \x1b[31mred\x07 \u2028 \u202e\x85")
    )
    assert line.splitlines() == [line]
    assert line.isprintable()
    assert r"x\r\n2026 ERROR forged \x1b[31mred\x07 \u2028 \u202e\x85" in line


def test_a_traceback_stays_on_its_line():
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        line = logs.LineFormatter().format(record("went wrong", error=True))
    assert line.splitlines() == [line]
    assert r"ValueError: first\nsecond" in line


def test_a_line_starts_with_time_level_and_logger():
    assert logs.LineFormatter().format(record("hello")).split()[1:] == ["INFO", "jobs", "hello"]


@pytest.mark.parametrize(
    ("text", "canary"),
    [
        ("Authorization: Bearer c4n4ry-c4n4ry", "c4n4ry"),
        ("{'Authorization': 'Basic c4n4rybase64=='}", "c4n4ry"),
        ("the key js_c4n4ryc4n4ryc4n4ry was refused", "c4n4ry"),
        ("signed with whsec_c4n4ryc4n4ryc4n4ry=", "c4n4ry"),
        ("the stream token jst_c4n4ry:c4n4ryc4n4ry has ended", "c4n4ry"),
        ("redis://worker:c4n4ry@broker:6379/0 is away", "c4n4ry"),
        ("password=c4n4ry user=ann", "c4n4ry"),
        ('{"api_key": "c4n4ry"}', "c4n4ry"),
        ("secret: c4n4ry", "c4n4ry"),
    ],
)
def test_secrets_are_taken_out(text, canary):
    line = logs.LineFormatter().format(record("%s", text))
    assert canary not in line
    assert "***" in line


def test_a_mail_server_without_a_password_leaves_the_log_whole(settings):
    """EMAIL_URL=smtp://host:25 sets EMAIL_HOST_PASSWORD to None."""
    settings.EMAIL_HOST_PASSWORD = None
    logs._known_secrets.cache_clear()
    try:
        assert logs.redact("all is well") == "all is well"
    finally:
        logs._known_secrets.cache_clear()


def test_the_values_of_secret_settings_are_taken_out(settings, monkeypatch):
    """S35: every one of them, wherever it stands in a line."""
    for name in ("CRON_SECRET", "ADMIN_API_KEY", "EMAIL_HOST_PASSWORD", "AWS_SECRET", "AWS_TOKEN"):
        setattr(settings, name, f"c4n4ry {name}")
    own = {
        name: f"c4n4ry {name}"
        for name in ("RUNPOD_API_KEY", "LLM_KEY", "ALERT_WEBHOOK_URL", "METRICS_TOKEN", "PING_URL", "SENTRY_DSN")
    }
    settings.JOBSITE = {**settings.JOBSITE, **own}
    monkeypatch.setitem(settings.DATABASES["default"], "PASSWORD", "c4n4ry database")
    settings.CELERY_BROKER_URL = "redis://:c4n4ry%2Fbroker@h/0;redis://:c4n4ry-spare@h/0"
    logs._known_secrets.cache_clear()
    try:
        assert len(logs._known_secrets()) == 16  # with SECRET_KEY
        assert {"c4n4ry/broker", "c4n4ry-spare"} < set(logs._known_secrets())
        text = logs.redact("; ".join(logs._known_secrets()))
    finally:
        logs._known_secrets.cache_clear()
    assert text == "; ".join(["***"] * 16)


# --- what a line is about, and JSON --------------------------------------------------------------------------------


def as_json(given: logging.LogRecord) -> dict:
    line = logs.json_formatter().format(given)
    assert line.splitlines() == [line]
    assert line.isprintable()
    return json.loads(line)


def test_what_was_bound_is_in_every_form():
    with bound_contextvars(request_id="abc", user_id=7):
        assert logs.LineFormatter().format(record("hello")).endswith("jobs hello [request_id=abc user_id=7]")
        line = as_json(record("hello %s", "world"))
    assert line | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "logger": "jobs",
        "event": "hello world",
        "request_id": "abc",
        "user_id": 7,
    }


@pytest.mark.parametrize(
    "text", ['x\r\n{"level": "error"}', "\x1b[31mred\x07\x7f", "\u2028\u202e\x85", '", "level": "error']
)
def test_user_text_forges_no_json_line(text):
    line = as_json(record("prompt %s", text))
    assert line["event"] == f"prompt {text}"
    assert line["level"] == "info"


def test_secrets_are_taken_out_of_json_too(settings):
    settings.CRON_SECRET = 'c4n4ry"with\\quote'
    logs._known_secrets.cache_clear()
    try:
        with bound_contextvars(header="Bearer c4n4ry-c4n4ry"):
            try:
                raise ValueError("password=c4n4ry")
            except ValueError:
                line = as_json(record("asked with %s", settings.CRON_SECRET, error=True))
    finally:
        logs._known_secrets.cache_clear()
    assert "c4n4ry" not in json.dumps(line)
    assert "ValueError: password=***" in line["exception"]


def test_a_terminals_colour_is_put_around_a_clean_line(monkeypatch):
    warning = record("hot \x1b[31m")
    warning.levelname = "WARNING"
    line = logs.ColourFormatter().format(warning)
    assert line.startswith("\x1b[33m")
    assert line.count("\x1b") == 2
    assert type(logs.terminal_formatter()) is logs.LineFormatter  # no terminal looks on here


@pytest.mark.django_db
def test_a_requests_lines_carry_its_id_and_user(ann, caplog, monkeypatch):
    """Seen without the middleware's binding: the lines carry neither. Nothing is left for the thread's next request."""
    from tests.clients import ApiClient  # not above: the writers' processes import this file without Django
    from tests.jobs.conftest import PARAMS

    seen = []
    monkeypatch.setattr("jobs.sale.log.info", lambda *_: seen.append(get_contextvars()))
    body = {"kind": "KITCHEN", "params": PARAMS}
    assert ApiClient(ann).send("/api/jobs/", body, X_Request_Id="abc-1").status_code == 202
    assert seen == [{"request_id": "abc-1", "user_id": ann.pk}]
    ApiClient().get("/livez", headers={"X-Request-Id": "abc-2"})
    assert get_contextvars() == {"request_id": "abc-2"}
    browser = Client()
    browser.force_login(ann)
    browser.get("/api/jobs/", headers={"X-Request-Id": "abc-3"})
    assert get_contextvars() == {"request_id": "abc-3", "user_id": ann.pk}


def _write(path, name: str) -> None:
    handler = logs.RotatingHandler(path, limit=2_000, keep=50)
    for number in range(200):
        handler.emit(record(f"{name}-{number} {'x' * 30}"))
    handler.close()


def test_several_processes_rotate_one_file_and_lose_no_line(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path / "worker.log", name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    files = [path for path in tmp_path.glob("worker.log*") if path.suffix != ".lock"]
    lines = [line.split()[0] for path in files for line in path.read_text().splitlines()]
    assert len(files) > 5
    assert sorted(lines) == sorted(f"{name}-{number}" for name in "abc" for number in range(200))


def test_old_files_go(tmp_path):
    handler = logs.RotatingHandler(tmp_path / "web.log", limit=100, keep=2)
    for number in range(40):
        handler.emit(record(f"{number} {'x' * 60}"))
    handler.close()
    assert {path.name for path in tmp_path.iterdir()} == {"web.log", "web.log.1", "web.log.2", "web.log.lock"}


def test_a_file_that_cannot_be_opened_fails_nobody_who_logs(tmp_path, monkeypatch, capsys):
    """Its folder was removed, or the process has no descriptor left; the next line that can be written is."""
    monkeypatch.setattr(logging, "raiseExceptions", True)
    (tmp_path / "log").mkdir()
    handler = logs.RotatingHandler(tmp_path / "log" / "web.log")
    handler.handle(record("one"))
    shutil.rmtree(tmp_path / "log")
    handler.handle(record("two"))
    assert "FileNotFoundError" in capsys.readouterr().err
    (tmp_path / "log").mkdir()
    handler.handle(record("three"))
    handler.close()
    assert (tmp_path / "log" / "web.log").read_text().split() == ["three"]


@pytest.mark.parametrize(("path", "logged"), [("/health", False), ("/readyz/", False), ("/api/jobs/", True)])
def test_a_red_probe_is_no_error_of_its_request(path, logged, rf):
    unavailable = record("Service Unavailable: %s", path)
    unavailable.request, unavailable.status_code = rf.get(path), 503
    assert bool(logs.WithoutProbes().filter(unavailable)) == logged
