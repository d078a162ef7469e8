import os
import subprocess

import pytest
import redis
from django.core.exceptions import ImproperlyConfigured

from jobsite import broker
from tests.waiting import until


@pytest.fixture
def here(settings, tmp_path):
    """An embedded broker of the test's own."""
    settings.HOME = settings.LOG_DIR = tmp_path
    settings.RUNTIME = tmp_path / "run"
    settings.BROKER_SOCKET = settings.RUNTIME / "broker.sock"
    return settings


def client(settings) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(settings.BROKER_SOCKET), socket_timeout=2)


def answers(settings) -> bool:
    try:
        return client(settings).ping()
    except redis.ConnectionError:
        return False


def test_only_its_user_reaches_it_and_it_keeps_its_queue_over_a_kill(here):
    for length in (1, 2):
        server = subprocess.Popen(broker.command(), stdin=subprocess.DEVNULL)
        try:
            until(lambda: answers(here), seconds=20)
            with client(here) as connection:
                assert connection.config_get("port") == {"port": "0"}
                assert connection.lpush("queue", "message") == length  # the second server still has the first message
                assert connection.info("persistence")["aof_enabled"] == 1
        finally:
            server.kill()
            server.wait()
    assert here.BROKER_SOCKET.stat().st_mode & 0o777 == 0o700
    assert here.RUNTIME.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_use_is_refused(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("open", "link"):
        with pytest.raises(ImproperlyConfigured, match="only you can use"):
            broker.private_folder(tmp_path / name)


def test_without_the_wheel_one_on_path_is_taken_and_else_one_sentence_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(broker.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImproperlyConfigured, match="install valkey-server or redis-server, or set CELERY_BROKER_URL"):
        broker.binary()
    server = tmp_path / "redis-server"
    server.write_text("")
    os.chmod(server, 0o755)
    assert broker.binary() == str(server)
