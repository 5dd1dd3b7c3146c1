"""Ports of this machine that nothing listens on."""

import atexit
import random
import socket
from collections import deque
from typing import Final

# Below the ports of outgoing connections (32768 and up on Linux): a connection that anybody opens between the choice
# of a port and its use can't take it. 10000 and up: few well-known servers listen there.
_RANGE: Final = range(10_000, 30_000)
# Test frameworks seed the functions of `random` alike for every test.
_RANDOM: Final = random.SystemRandom()
# The newest chosen ports are held by UDP sockets, which nothing else here uses, so that no process chooses them again.
_HELD: Final = deque[socket.socket]()
_MOST_HELD: Final = 200


def free_port() -> int:
    """Return a port that nothing listens on just now."""
    return free_ports(1).start


def free_ports(count: int) -> range:
    """Return `count` ports in a row that nothing listens on just now.

    They are drawn at random. No program that chooses so at the same time gets one of them, as long as this process runs
    and has not chosen hundreds more.
    """
    while True:
        first = _RANDOM.choice(_RANGE)
        ports = range(first, first + count)
        if all(is_free(port) for port in ports) and (held := _hold(ports)):
            _HELD.extend(held)
            while len(_HELD) > _MOST_HELD:
                _HELD.popleft().close()
            return ports


@atexit.register
def _let_go() -> None:
    while _HELD:
        _HELD.popleft().close()


def _hold(ports: range) -> list[socket.socket]:
    """Return sockets that hold the ports, or none if somebody holds one of them."""
    held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in ports]
    try:
        for one, port in zip(held, ports, strict=True):
            one.bind(("127.0.0.1", port))
    except OSError:
        for one in held:
            one.close()
        return []
    return held


def is_free(port: int) -> bool:
    """Return whether nothing listens on the port of 127.0.0.1."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
