"""The HTTP port."""

import socket

from predictor.exceptions import StartError


def listen(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """A listening socket; StartError when the port is taken. Shared ports are those of several workers."""
    try:
        return socket.create_server((host, port), backlog=1024, reuse_port=is_shared)
    except OSError as error:
        raise StartError(f"can't listen on {host}:{port}: {error.strerror}") from error
