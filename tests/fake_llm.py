"""A real local HTTP server that speaks OpenAI's chat completions, and goes wrong as told.

`with FakeLLM("500", "ok") as server:` answers the first call with 500 and all others well. By itself it runs as
`python -m tests.fake_llm PORT [BEHAVIOUR …]`, for rehearsals with `LLM_BASE_URL=http://127.0.0.1:PORT/v1`.
"""

import contextlib
import gzip
import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-or-canary-5f1c9d"
Answer = Callable[[dict], str]


def first_fact(prompt: dict) -> str:
    """A good model's answer: one insight that quotes a number of the first fact, and one that invents a number."""
    fact = prompt["facts"][0]
    name, number = next((name, n) for name, n in fact["numbers"].items() if isinstance(n, (int, float)))
    good = {"text": f"The model saw {name} {number}.", "facts": [fact["id"]]}
    invented = {"text": "Sales will rise by 123456789.", "facts": [fact["id"]]}
    return json.dumps({"insights": [good, invented]})


class FakeLLM:
    """The server; `requests` are the calls so far as (headers, body). Behaviours are the methods of `_Handler`."""

    def __init__(self, *behaviours: str, content: Answer = first_fact, port: int = 0):
        self.behaviours, self.content = list(behaviours or ["ok"]), content
        self.requests: list[tuple[dict[str, str], dict]] = []
        self.closing = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
        self.server.daemon_threads = True
        self.server.fake = self
        self.base_url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self) -> "FakeLLM":
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_error) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def behaviour(self) -> str:
        return self.behaviours[min(len(self.requests), len(self.behaviours)) - 1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        fake = self.server.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fake.requests.append((dict(self.headers), body))
        self.fake, self.body = fake, body
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client has gone, as it should
            getattr(self, "answer_" + fake.behaviour())()

    do_GET = do_POST

    def log_message(self, *_arguments) -> None:
        """Quiet."""

    def send(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def completion(self, content: str) -> bytes:
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        return json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice]}).encode()

    def answer_ok(self) -> None:
        self.send(200, self.completion(self.fake.content(json.loads(self.body["messages"][-1]["content"]))))

    def answer_401(self) -> None:
        self.send(401, json.dumps({"error": {"message": f"bad key {self.headers['Authorization']}"}}).encode())

    def answer_429(self) -> None:
        self.send(429, b'{"error": "slow down"}', Retry_After="0")

    def answer_500(self) -> None:
        self.send(500, b"<html>oops</html>")

    def answer_not_json(self) -> None:
        self.send(200, b'{"choices": [{"message": {"content": "cut off')

    def answer_no_choices(self) -> None:
        self.send(200, b'{"choices": []}')

    def answer_prose(self) -> None:
        self.send(200, self.completion("Sure! Here are your insights: sales are great."))

    def answer_drip(self) -> None:
        """One byte a second, from the first header on."""
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n":
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.fake.closing.wait(1.0):
                return

    def answer_drip_body(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        while not self.fake.closing.wait(1.0):
            self.wfile.write(b" ")
            self.wfile.flush()

    def answer_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.fake.closing.is_set():
            self.wfile.write(b" " * 65536)

    def answer_never_closes(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.completion("{}"))
        self.wfile.flush()
        self.fake.closing.wait()

    def answer_silent(self) -> None:
        self.fake.closing.wait()

    def answer_redirect(self) -> None:
        self.send(301, b"", Location=self.fake.base_url + "/chat/completions")

    def answer_bomb(self) -> None:
        self.send(200, gzip.compress(bytes(50_000_000)), Content_Encoding="gzip")

    def answer_hang_up(self) -> None:
        self.connection.close()


if __name__ == "__main__":
    with FakeLLM(*sys.argv[2:], port=int(sys.argv[1])) as server:
        server.thread.join()
