"""A real S3 server (moto) on this host, and a proxy in front of it that has bad days."""

import http.client
import logging
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

KEY_ID, SECRET = "AKIAJOBSITETEST00001", "never-to-be-seen-in-any-log-4f1c9e"


@cache
def address() -> str:
    """The server, started once in a process. It takes any key, and any signature."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    return "http://{}:{}".format(*server.get_host_and_port())


def storage(bucket: str, *, endpoint: str = "", prefix: str = "", **query: str) -> dict:
    """STORAGES["default"] of a bucket, which is made."""
    from jobsite.storage import backend

    ask("PUT", f"/{bucket}")
    return backend(storage_url(bucket, endpoint=endpoint, prefix=prefix, **query), key_id=KEY_ID, secret=SECRET)


def storage_url(bucket: str, *, endpoint: str = "", prefix: str = "", **query: str) -> str:
    more = "".join(f"&{name}={value}" for name, value in query.items())
    return f"s3://{bucket}/{prefix}?endpoint={endpoint or address()}&region=eu-central-1{more}"


def ask(method: str, path: str, body: bytes = b"", to: str = "", **headers: str) -> http.client.HTTPResponse:
    """One request, straight to the server; the answer has been read into `content`."""
    where = urlsplit(to or address())
    line = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
    line.request(method, path, body, headers)
    answer = line.getresponse()
    answer.content = answer.read()
    line.close()
    return answer


@dataclass
class BadDay:
    """What befalls requests of a method whose path contains `path`: the first `times` of them."""

    method: str
    path: str
    what: str  # an HTTP status, `lost` (done, but nobody hears of it), `cut` (half of the answer's body) or `short`
    times: int = 1
    seconds: float = 0.0  # before the answer


class Proxy:
    """In front of the server; `plan` says what goes wrong, `seen` what was asked, as "PUT /bucket/key"."""

    def __init__(self) -> None:
        self.plan: list[BadDay] = []
        self.seen: list[str] = []
        self.lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                proxy.handle(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

            def log_message(self, *args) -> None:
                """Not to the test's output."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=[0.02], daemon=True).start()

    def count(self, method: str, path: str) -> int:
        return sum(line.startswith(f"{method} ") and path in line for line in self.seen)

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        bad = self._bad_day(request.command, request.path)
        if bad and bad.seconds:
            time.sleep(bad.seconds)
        if bad and bad.what.isdigit():
            self._send(request, int(bad.what), {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        answer = ask(request.command, request.path, body, **headers)
        if bad and bad.what == "lost":
            request.close_connection = True
            return
        told = {name: value for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP}
        content = answer.content[: len(answer.content) // 2] if bad else answer.content
        length = len(content) if not bad or bad.what == "short" else len(answer.content)
        if request.command == "HEAD":
            length = int(answer.headers.get("Content-Length") or 0)
        self._send(request, answer.status, told, content, length)
        request.close_connection = request.close_connection or bool(bad)

    def _send(self, request, status: int, headers: dict[str, str], content: bytes, length: int | None = None) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content) if length is None else length))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    def _bad_day(self, method: str, path: str) -> BadDay | None:
        with self.lock:
            self.seen.append(f"{method} {path}")
            for bad in self.plan:
                if bad.times and bad.method == method and bad.path in path:
                    bad.times -= 1
                    return bad
        return None


HOP_BY_HOP = {"content-length", "connection", "transfer-encoding", "date", "server"}


@contextmanager
def proxied() -> Iterator[Proxy]:
    proxy = Proxy()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
