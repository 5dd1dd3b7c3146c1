"""Addresses, and the sockets that listen on them."""

import socket
from dataclasses import dataclass
from typing import Final

from serving.exceptions import StartError

# Completed connections that the kernel queues until the server accepts them.
_BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server. Port 0 picks a free port. Several processes can listen on a shared port."""

    host: str
    port: int
    is_shared: bool = False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listen(address: Address) -> socket.socket:
    """Return a listening socket; raise StartError on failure, for example if the port is taken."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server(
            (address.host, address.port), family=family, backlog=_BACKLOG, reuse_port=address.is_shared
        )
    except OSError as error:
        raise StartError(f"can't listen on {address}: {error.strerror or error}") from error
