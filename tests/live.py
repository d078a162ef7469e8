"""The web process, in a thread of the test: what only a server shows (streams, held answers, who hangs up)."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import httpx
import uvicorn
from httpx_sse import ServerSentEvent, connect_sse

from tests.waiting import until


class Live:
    """uvicorn with the platform's own application on a free port; `close` it."""

    def __init__(self, **options):
        from django.core.asgi import get_asgi_application
        from django.db import connection

        from jobs.api.gate import BodyGate
        from jobs.api.later import LaterAnswers

        self.application = LaterAnswers(BodyGate(get_asgi_application()))
        self.hub = self.application.hub
        self.database = connection.settings_dict
        self.kept, self.database["CONN_MAX_AGE"] = self.database["CONN_MAX_AGE"], 0  # as in the web process
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        config = uvicorn.Config(
            self.application, lifespan="off", http="h11", loop="asyncio", log_config=None, **options
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],), daemon=True)
        self.thread.start()
        until(lambda: self.server.started)

    def client(self, secret: str | None = None, **options) -> httpx.Client:
        """An HTTP client with a key."""
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=10, **options)

    @contextlib.contextmanager
    def events(self, client: httpx.Client, path: str, **headers: str) -> Iterator[Iterator[ServerSentEvent]]:
        """The events of a stream as they come."""
        with connect_sse(client, "GET", path, headers=headers) as source:
            yield source.iter_sse()

    def close(self) -> None:
        """End it as TERM would, and wait until nobody watches."""
        self.server.should_exit = True
        self.thread.join(10)
        self.database["CONN_MAX_AGE"] = self.kept
        assert not self.thread.is_alive()
