"""A relay of TCP connections between two parts of the loop, which can cut, delay or reset them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

_DELAY_S: Final = 0.1
_PIECE_BYTES: Final = 1 << 16
# Pieces that are on their way in one direction of a connection.
_PIECES: Final = 1_000
CUT, DELAYED, RESET = WAYS = ("cut", "delayed by 100 ms", "reset")


class Relay:
    """Passes connections to `port` of 127.0.0.1 on to `target`. `breaks` begins and `mend` ends a fault.

    While the relay is cut, connections stay open and new ones are accepted, but no byte passes. A real network keeps
    those bytes for later too, since TCP sends them again.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._way = ""
        self._passes = asyncio.Event()
        self._passes.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        self._abort_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def breaks(self, way: str) -> None:
        """Begin to disturb the connections in one of WAYS."""
        self._way = way
        if way == CUT:
            self._passes.clear()
        elif way == RESET:
            self._abort_all()

    def mend(self) -> None:
        self._way = ""
        self._passes.set()

    def _abort_all(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        onward: asyncio.StreamWriter | None = None
        try:
            await self._passes.wait()
            if self._way == RESET:
                return
            back, onward = await asyncio.open_connection("127.0.0.1", self._target)
            self._open.add(onward)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, onward))
                group.create_task(self._pass_on(back, writer))
        except (OSError, ExceptionGroup):
            # One side is gone. The other one learns of it in the same way.
            pass
        finally:
            for one in filter(None, (writer, onward)):
                self._open.discard(one)
                one.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(reader, pieces.put))
            group.create_task(self._write(pieces, writer))

    async def _read(self, reader: asyncio.StreamReader, put: Callable[[tuple[float, bytes]], Awaitable[None]]) -> None:
        data = b"."
        while data:
            data = await reader.read(_PIECE_BYTES)
            delay_s = _DELAY_S if self._way == DELAYED else 0.0
            await put((time.monotonic() + delay_s, data))

    async def _write(self, pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due_s, data = await pieces.get()
            await asyncio.sleep(max(due_s - time.monotonic(), 0.0))
            await self._passes.wait()
            if not data:
                with suppress(OSError):
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
