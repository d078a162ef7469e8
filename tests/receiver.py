"""A webhook receiver for tests: a real HTTP server on this host that answers as it is told."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook

Says = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, body: bytes = b"", **headers: str) -> Says:
    """Answers with that status; keyword arguments are headers with _ for -."""

    def say(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return say


@dataclass
class Receiver:
    """`says` is how it answers from now on; `got` is what came: headers and body. `closing` is set at its end."""

    url: str
    says: Says = field(default_factory=lambda: status(204))
    got: list[tuple[dict[str, str], str]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def hang(self, _: BaseHTTPRequestHandler) -> None:
        """Answers nothing."""
        self.closing.wait(30)

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]

    def verified(self, secret: str) -> list[dict]:
        """What came, each verified as the standard's own library does it."""
        return [Webhook(secret).verify(body, headers) for headers, body in self.got]


@contextmanager
def receiver(host: str = "127.0.0.1") -> Iterator[Receiver]:
    """A receiver that listens until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            here.got.append((dict(self.headers), body))
            here.says(self)

        def do_GET(self):
            here.got.append((dict(self.headers), ""))
            status(200)(self)

        def log_message(self, *_):
            pass

        def handle(self):
            try:
                super().handle()
            except OSError:  # the caller has gone
                self.close_connection = True

    server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True
    here = Receiver(f"http://{host}:{server.server_port}/hook?token=t0ken")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield here
    finally:
        here.closing.set()
        server.shutdown()
        server.server_close()
