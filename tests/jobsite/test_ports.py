"""A port that is held is the server's that is told of it, and nobody else's."""

import socket

import pytest

from jobsite.supervisor import check_port, hold_port


def test_a_server_may_listen_and_a_stranger_may_not_even_bind():
    """Bound, closed and named, it was somebody else's meanwhile once in 14,000 times."""
    with hold_port() as held:
        address = held.getsockname()
        for _ in range(2):  # also when the server is started again
            check_port(*address)
            with socket.create_server(address) as server, socket.create_connection(address, 10):
                server.accept()[0].close()
        with socket.socket() as stranger, pytest.raises(OSError):
            stranger.bind(address)
