"""A TCP proxy before the API server, which a test can shut or freeze."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self


class Gate:
    """Hands TCP connections on to a port of this machine.

    `shut` breaks all connections and refuses new ones. `freeze` keeps connections open but stops all data. `open` ends
    both.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._open = True
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open()
        self.shut()
        assert self._server
        self._server.close()
        await asyncio.gather(*self._tasks)

    @property
    def url(self) -> str:
        assert self._server
        return f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def shut(self) -> None:
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        self._flows.clear()

    def open(self) -> None:
        self._open = True
        self._flows.set()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task, ends = asyncio.current_task(), {writer}
        assert task
        self._tasks.add(task)
        try:
            if self._open:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
                ends.add(far_writer)
                self._writers |= ends
                await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))
        except OSError:
            # Nobody listens at the port now.
            pass
        finally:
            self._tasks.discard(task)
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
