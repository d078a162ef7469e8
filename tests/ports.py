"""A port for a server that another process is about to start."""

import socket


def reserved() -> socket.socket:
    """A socket that holds a free port of this host until it is closed: nobody else is given it meanwhile.

    It does not listen, and allows its address to be used again, so a server that does likewise (uvicorn) listens there.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def number(held: socket.socket) -> int:
    return held.getsockname()[1]
