"""Accepts connections, and bounds those that have not finished their TLS handshake.

The event loop's own server would accept any number of them, and tell of none before its handshake has ended.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from epp.extproc.http2.connection import Connection, peer_text
from serving.descriptors import EXHAUSTED

_HANDSHAKE_S: Final = 10.0
_TLS_FAREWELL_S: Final = 1.0
# Connections that are accepted in one turn of the event loop: a new one costs some 100 µs over TLS.
_AT_ONCE: Final = 32
# Pause after an error of accept(2), which would otherwise be tried in each turn.
_PAUSE_S: Final = 1.0


class Acceptor:
    """Accepts the connections of `listener` until it is closed.

    `new_connection` makes the protocol of each, whose `connection_made` is called after the handshake. `count_room`
    returns how many may be in handshake now. Beyond that, the one that has been in handshake for the longest is cut
    off: a client that never shakes hands keeps no other out. `on_refused` is called with its address.
    """

    def __init__(
        self,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        new_connection: Callable[[], Connection],
        count_room: Callable[[], int],
        on_refused: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._tls = tls
        self._new_connection = new_connection
        self._count_room = count_room
        self._on_refused = on_refused
        # The clients in handshake and their addresses, the oldest first.
        self._shaking: dict[asyncio.Task[None], tuple[socket.socket, str]] = {}
        # Its descriptor serves to end a connection when no other is left.
        self._spare = open(os.devnull)  # noqa: SIM115
        self._resuming: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept no more connections. Those in handshake go on. Has no effect if called again."""
        if self._listener.fileno() < 0:
            return
        self._loop.remove_reader(self._listener)
        if self._resuming:
            self._resuming.cancel()
        self._listener.close()
        self._spare.close()

    async def end_handshakes(self) -> None:
        """Cut off the connections in handshake."""
        for client, _ in self._shaking.values():
            _cut_off(client)
        await asyncio.gather(*self._shaking)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in EXHAUSTED or not self._turn_away():
                    self._pause()
                    return
            else:
                self._begin(client, peer_text(address))

    def _begin(self, client: socket.socket, peer: str) -> None:
        if len(self._shaking) >= self._count_room():
            if not self._shaking:
                self._on_refused(peer)
                client.close()
                return
            oldest, its_peer = self._shaking.pop(next(iter(self._shaking)))
            self._on_refused(its_peer)
            _cut_off(oldest)
        client.setblocking(False)
        task = self._loop.create_task(self._shake_hands(client))
        self._shaking[task] = client, peer
        task.add_done_callback(lambda task: self._shaking.pop(task, None))

    async def _shake_hands(self, client: socket.socket) -> None:
        """Hand the connection over to its protocol. A client that fails to shake hands gets no line in the log."""
        with suppress(OSError):
            await self._loop.connect_accepted_socket(
                self._new_connection,
                client,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE_S if self._tls else None,
                ssl_shutdown_timeout=_TLS_FAREWELL_S if self._tls else None,
            )

    def _turn_away(self) -> bool:
        """End a client's connection without a free descriptor, else it would wait. Return False if that failed."""
        self._spare.close()
        with suppress(OSError):
            self._listener.accept()[0].close()
        try:
            self._spare = open(os.devnull)  # noqa: SIM115
        except OSError:
            return False
        return True

    def _pause(self) -> None:
        self._loop.remove_reader(self._listener)
        self._resuming = self._loop.call_later(_PAUSE_S, self._loop.add_reader, self._listener, self._accept)


def _cut_off(client: socket.socket) -> None:
    # The event loop reads the end of the stream, and closes the socket.
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
