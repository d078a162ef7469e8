"""The dead man's switch: pinged after a cleanup that settled all it found, and after no other."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jobs import cleanup, ping, tasks, upkeep
from jobs.models import CleanupRun, Tick

pytestmark = pytest.mark.django_db


@contextmanager
def watcher(status: int = 200):
    """A service that waits for pings; yields its address and what it got."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(self.path)
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/ping/abc", got
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def tick(settings):
    """tick(url): one cleanup of Beat's with that PING_URL."""
    upkeep.install()

    def run(url: str) -> None:
        settings.JOBSITE = {**settings.JOBSITE, "PING_URL": url}
        Tick.objects.filter(name="cleanup_stuck_jobs").update(ran_at=None)
        tasks.cleanup_stuck_jobs()

    return run


def test_a_good_cleanup_pings_and_one_that_settles_too_little_does_not(tick, monkeypatch):
    with watcher() as (url, got):
        tick(url)
        assert got == ["/ping/abc"]
        tasks.cleanup_stuck_jobs()  # a doubled message: not its turn
        assert len(got) == 1
        monkeypatch.setattr(cleanup, "cleanup_stuck_jobs", lambda **_: CleanupRun(failed=1))
        tick(url)
        assert len(got) == 1


@pytest.mark.parametrize("status", [500, 302])
def test_a_watcher_that_does_not_take_it_is_told_in_the_log_without_its_address(status, tick, caplog):
    with watcher(status) as (url, got):
        tick(url)
        assert got == ["/ping/abc"]
    assert f"PING_URL answered {status}" in caplog.text
    tick("http://127.0.0.1:1/ping/abc")
    assert "PING_URL could not be reached" in caplog.text
    assert "/ping/abc" not in caplog.text


def test_without_an_address_nobody_is_called(tick):
    tick("")
    assert ping.alive() is False
