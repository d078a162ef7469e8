"""A bad network: a proxy in front of a real server that loses, cuts, refuses and redirects as it is told."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

OWN = {"connection", "transfer-encoding", "date", "server", "keep-alive"}


@dataclass
class Trouble:
    """What befalls the first `times` requests of a method whose path contains `path`."""

    method: str
    path: str
    what: str  # `unheard` (closed before it is passed on), `lost` (done, its answer is not), `cut` (half of the
    # body; of a stream its first event),
    # `hang` (no answer until the test ends), an HTTP status, or an address to redirect to
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Seen:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]


class Network:
    """`plan` says what goes wrong, `seen` is what came."""

    def __init__(self, server: str):
        self.server = urlsplit(server)
        self.plan: list[Trouble] = []
        self.seen: list[Seen] = []
        self.over = threading.Event()
        network = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                network.handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do

            def log_message(self, *args) -> None:
                """Not to the test's output."""

        self.front = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.front.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.front.server_port}"
        threading.Thread(target=self.front.serve_forever, args=[0.02], daemon=True).start()

    def asked(self, method: str, path: str) -> list[Seen]:
        """The requests of that method whose path contains `path`."""
        return [one for one in self.seen if one.method == method and path in one.path]

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        headers = dict(request.headers.items())
        self.seen.append(Seen(request.command, request.path, headers))
        trouble = self._trouble(request)
        body = request.rfile.read(int(headers.get("Content-Length") or 0))
        if trouble and trouble.what == "hang":
            self.over.wait(30)
        if trouble and trouble.what in ("unheard", "hang"):
            return
        if trouble and (trouble.what.isdigit() or "/" in trouble.what):
            status = int(trouble.what) if trouble.what.isdigit() else 302
            more = {} if trouble.what.isdigit() else {"Location": trouble.what}
            _start(request, status, {**trouble.headers, **more, "Content-Length": "0"})
            return
        line = http.client.HTTPConnection(self.server.hostname, self.server.port, timeout=30)
        try:
            line.request(request.command, request.path, body, headers | {"Connection": "close"})
            answer = line.getresponse()
            if not (trouble and trouble.what == "lost"):
                _pass_on(request, answer, cut=bool(trouble and trouble.what == "cut"))
        finally:
            line.close()

    def _trouble(self, request: BaseHTTPRequestHandler) -> Trouble | None:
        for trouble in self.plan:
            if trouble.times and trouble.method == request.command and trouble.path in request.path:
                trouble.times -= 1
                return trouble
        return None


def _start(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Connection", "close")
    request.end_headers()


def _pass_on(request: BaseHTTPRequestHandler, answer: http.client.HTTPResponse, *, cut: bool) -> None:
    _start(request, answer.status, {k: v for k, v in answer.getheaders() if k.lower() not in OWN})
    length = answer.headers.get("Content-Length")
    left = int(length) // 2 if cut and length else None
    if request.command == "HEAD":
        return
    while left != 0 and (piece := answer.read1(65536 if left is None else min(left, 65536))):
        try:
            request.wfile.write(piece)
            request.wfile.flush()
        except OSError:
            return  # it has gone
        if cut and not length and b"data:" in piece:
            return
        left = None if left is None else left - len(piece)


@contextmanager
def before(server: str) -> Iterator[Network]:
    """A bad network in front of the server with that address."""
    network = Network(server)
    try:
        yield network
    finally:
        network.over.set()
        network.front.shutdown()
        network.front.server_close()
