"""A real SMTP server on 127.0.0.1 that keeps what it is sent, and fails as a test says."""

import contextlib
import socket
import socketserver
import threading
from email import message_from_bytes, policy
from email.message import EmailMessage


class MailServer(socketserver.ThreadingTCPServer):
    """`received` is what was taken, in order; recipients in `refuses` get 550. `fails` is how all goes wrong: `busy`
    (451 to each mail), `silent` (no greeting, no answer), `dropped` (the mail is taken, and the line goes dead)."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.received: list[EmailMessage] = []
        self.connections = 0
        self.fails = ""
        self.refuses: set[str] = set()
        self.over = threading.Event()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def __enter__(self) -> "MailServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()


class _Conversation(socketserver.StreamRequestHandler):
    server: MailServer

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def handle(self) -> None:
        self.server.connections += 1
        if self.server.fails == "silent":
            self.server.over.wait(30)
            return
        self.say("220 127.0.0.1 ready")
        with contextlib.suppress(OSError):
            while line := self.rfile.readline():
                if not self.answer(line.decode().strip()):
                    break

    def answer(self, line: str) -> bool:
        verb = line[:4].upper()
        if verb == "QUIT":
            self.say("221 bye")
            return False
        if verb == "DATA":
            return self.data()
        if verb == "RCPT" and any(address in line for address in self.server.refuses):
            self.say("550 no such user")
        else:
            self.say("250 ok")
        return True

    def data(self) -> bool:
        self.say("354 go on")
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line)
        if self.server.fails == "busy":
            self.say("451 later")
            return True
        self.server.received.append(message_from_bytes(b"".join(lines), policy=policy.default))
        if self.server.fails == "dropped":
            self.connection.shutdown(socket.SHUT_RDWR)
            return False
        self.say("250 taken")
        return True
