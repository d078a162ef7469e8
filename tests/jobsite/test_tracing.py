"""Sentry and a collector of our own, here: what a program of Jobsite's sends them, and what it leaves out."""

import gzip
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.conf import settings

PROGRAM = """
import logging, django
django.setup()
from django.test import Client
from jobsite import tracing
tracing.start("web")
secret = "c4n4ry-local"
try:
    raise ValueError("password=c4n4ry-word")
except ValueError:
    logging.getLogger("jobs").exception("asked with Bearer c4n4ry-bearer for %s", django.conf.settings.CRON_SECRET)
Client(headers={"Host": "localhost"}).get("/livez?token=c4n4ry-query", headers={"X-Request-Id": "trace-me"})
with tracing.span("attempt", job_id="0123", attempt=1):
    pass
import sentry_sdk
sentry_sdk.flush(10)
tracing._tracer.span_processor.force_flush(10_000)
"""


def unpacked(body: bytes, encoding: str | None) -> bytes:
    if encoding == "br":  # Sentry's choice where the package is installed
        import brotli

        return brotli.decompress(body)
    return gzip.decompress(body) if encoding == "gzip" else body


@pytest.fixture
def receiver():
    """A server that keeps what is posted to it: (path, body)."""
    posted = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path, unpacked(body, self.headers["Content-Encoding"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, posted
    server.shutdown()
    server.server_close()


@pytest.mark.once
def test_errors_and_traces_arrive_without_secrets(receiver, tmp_path):
    """Seen without `before_send`: the words of the line and of its exception arrive."""
    port, posted = receiver
    given = {
        "JOBSITE_HOME": str(tmp_path),
        "CRON_SECRET": "c4n4ry-setting",
        "SENTRY_DSN": f"http://c4n4rykey@127.0.0.1:{port}/1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=settings.BASE_DIR, env=os.environ | given, timeout=60)
    assert done.returncode == 0
    errors = b"".join(body for path, body in posted if path == "/api/1/envelope/")
    traces = b"".join(body for path, body in posted if path == "/v1/traces")
    (event,) = [json.loads(line) for line in errors.splitlines() if b'"exception"' in line]
    assert event["exception"]["values"][0]["type"] == "ValueError"
    assert event["tags"]["process"] == "web"
    assert b"c4n4ry" not in errors.replace(b"c4n4rykey", b"")  # the DSN's public half is how Sentry knows us
    for words in (b"GET request", b"trace-me", b"livez", b"attempt", b"0123", b"jobsite-web"):
        assert words in traces, words
    assert b"c4n4ry" not in traces


def test_nothing_is_done_where_nothing_is_set():
    from jobsite import tracing

    tracing.start("web")
    with tracing.span("attempt", attempt=1):
        assert tracing.begin("request") is None
    tracing.end(None)
    assert tracing._tracer is None
