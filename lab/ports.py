"""Ports of this machine that nothing listens on."""

import random
import socket
from typing import Final

# Below the ports of outgoing connections (32768 and up on Linux): a connection that anybody opens between the choice
# of a port and its use can't take it. 10000 and up: few well-known servers listen there.
_RANGE: Final = range(10_000, 30_000)
# Test frameworks seed the functions of `random` alike for every test.
_RANDOM: Final = random.SystemRandom()


def free_port() -> int:
    """Return a port that nothing listens on just now."""
    return free_ports(1).start


def free_ports(count: int) -> range:
    """Return `count` ports in a row that nothing listens on just now.

    They are drawn at random, so that programs that choose at the same time rarely choose the same.
    """
    while True:
        first = _RANDOM.choice(_RANGE)
        ports = range(first, first + count)
        if all(is_free(port) for port in ports):
            return ports


def is_free(port: int) -> bool:
    """Return whether nothing listens on the port of 127.0.0.1."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
