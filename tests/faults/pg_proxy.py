"""A proxy before PostgreSQL that can lose the answer to a COMMIT: the database has done it, the client never hears."""

import shutil
import socket
import struct
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from django.db import connection

READY = b"Z"  # PostgreSQL's ReadyForQuery: the answer to a query is complete


class Proxy:
    """Listens on a unix socket of its own; `host` and `port` are what a client connects to.

    `lose_commit_after(text)` arms it once: the COMMIT of the first transaction in which a statement holds `text` is
    done, its answer dropped and the client's connection cut. `lose_answer_to(text)` does it to the statement itself,
    which the database commits with no COMMIT.
    """

    def __init__(self) -> None:
        known = connection.settings_dict
        self._server = (str(known["HOST"] or "localhost"), int(known["PORT"] or 5432))
        self.folder = Path(tempfile.mkdtemp(prefix="jb-pg-"))
        self.folder.chmod(0o711)
        self.host, self.port = str(self.folder), "5432"
        self.lost = threading.Event()
        self._needle: bytes | None = None
        self.at_once = False
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self.folder}/.s.PGSQL.{self.port}")
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def lose_commit_after(self, text: str) -> None:
        self.lost.clear()
        self.at_once = False
        self._needle = text.encode()

    def lose_answer_to(self, text: str) -> None:
        self.lose_commit_after(text)
        self.at_once = True

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=_Session(self, client, self._connect()).serve, daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = self._server
        if host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((host, port))

    def takes_needle(self, statement: bytes) -> bool:
        """Whether this is the statement that it waits for; true once."""
        with self._lock:
            if self._needle is None or self._needle not in statement:
                return False
            self._needle = None
            return True


class _Session:
    """One client's connection: messages to the server are read one by one, answers pass as they come."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket):
        self.proxy, self.client, self.server = proxy, client, server
        self.armed = False  # the statement was in this transaction
        self.losing = False  # its COMMIT is under way

    def serve(self) -> None:
        threading.Thread(target=self._answers, daemon=True).start()
        try:
            self._pass_on(b"")  # the start-up message has no type
            while kind := self.client.recv(1):
                self._pass_on(kind)
        except OSError:  # either side has gone
            pass
        finally:
            self._cut()

    def _pass_on(self, kind: bytes) -> None:
        head = _exactly(self.client, 4)
        body = _exactly(self.client, struct.unpack("!I", head)[0] - 4)
        if self.armed and kind == b"Q" and body == b"COMMIT\0":
            self.losing = True
        elif self.proxy.takes_needle(body):
            self.armed, self.losing = True, self.proxy.at_once
        self.server.sendall(kind + head + body)

    def _answers(self) -> None:
        try:
            while data := self.server.recv(65536):
                if not self.losing:
                    self.client.sendall(data)
                elif data[-6:-5] == READY:
                    self._cut()
                    self.proxy.lost.set()
                    return
        except OSError:
            pass
        finally:
            self._cut()

    def _cut(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):  # it has gone before
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _exactly(end: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        if not (more := end.recv(size - len(found))):
            raise ConnectionError("closed within a message")
        found += more
    return found
