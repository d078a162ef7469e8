"""A reserved port is the server's that is told of it, and nobody else's."""

import socket

import pytest

from tests import ports


def test_a_server_may_listen_and_a_stranger_may_not_even_bind():
    with ports.reserved() as held:
        address = held.getsockname()
        for _ in range(2):  # also when the server is started again
            with socket.create_server(address) as server, socket.create_connection(address, 10):
                server.accept()[0].close()
        with socket.socket() as stranger, pytest.raises(OSError):
            stranger.bind(address)
