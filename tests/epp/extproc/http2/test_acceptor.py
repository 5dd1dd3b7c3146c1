"""Bound the connections that don't finish their TLS handshake, over real sockets and on both event loops."""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from epp.extproc.http2 import acceptor
from epp.extproc.http2.front import Http2Server, listen
from epp.extproc.rpc import Services
from epp.extproc.tls import Certificates
from serving.listening import Address
from tests.epp.extproc.http2.test_connection_limit import GREETING, PING, PONG
from tests.live import PATIENCE_S

Run = Callable[[Coroutine[Any, Any, None]], None]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LIMIT, TOLD = 2, 1


@pytest.fixture(params=[asyncio.run, uvloop.run])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs a coroutine on an event loop: Python's, or the picker's with a TLS of its own."""
    monkeypatch.setattr("epp.extproc.http2.front._TOLD_AT_ONCE", TOLD)

    def run(main: Coroutine[Any, Any, None]) -> None:
        request.param(asyncio.wait_for(main, PATIENCE_S))

    return run


@pytest.fixture
def counted() -> list[str]:
    """Return the kinds of floods that the server counts."""
    return []


async def serve(counted: list[str]) -> Http2Server:
    services = Services(max_connections=LIMIT, count_flood=counted.append)
    return await listen(Address("127.0.0.1", 0), services, Certificates())


async def connect(server: Http2Server) -> Streams:
    """Connect, and send nothing."""
    return await asyncio.open_connection("127.0.0.1", server.port)


async def admitted(server: Http2Server) -> Streams:
    """Shake hands, and wait for the answer to a PING."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    writer.write(GREETING + PING)
    await reader.readuntil(PONG)
    return reader, writer


def test_silent_clients_are_bounded_and_keep_no_gateway_out(
    run: Run, counted: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        server = await serve(counted)
        silent = [await connect(server) for _ in range(LIMIT + TOLD + 3)]
        for reader, _ in silent[:3]:
            assert await reader.read() == b""
        gateways = [await admitted(server) for _ in range(LIMIT)]
        for reader, _ in silent[3:5]:
            assert await reader.read() == b""
        assert counted == ["connections"] * 5
        assert len(server._acceptor._shaking) == TOLD
        for _, writer in [*silent, *gateways]:
            writer.close()
        await server.stop(0)

    run(main())
    (line,) = caplog.messages
    assert line.startswith("refused a connection from 127.0.0.1:")


def test_clients_in_handshake_are_cut_off_when_the_server_stops(run: Run, counted: list[str]) -> None:
    async def main() -> None:
        server = await serve(counted)
        reader, writer = await connect(server)
        while not server._acceptor._shaking:
            await asyncio.sleep(0)
        await server.stop(0)
        assert await reader.read() == b""
        writer.close()

    run(main())
    assert counted == []


def test_a_client_that_breaks_its_handshake_off_is_forgotten_without_a_word(
    run: Run, counted: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        server = await serve(counted)
        for data in (b"GET / HTTP/1.1\r\n\r\n", b""):
            _, writer = await connect(server)
            writer.write(data)
            while not server._acceptor._shaking:
                await asyncio.sleep(0)
            writer.close()
            while server._acceptor._shaking:
                await asyncio.sleep(0)
        await server.stop(0)

    caplog.set_level(logging.INFO)
    run(main())
    assert (counted, caplog.messages) == ([], [])


def test_accepting_goes_on_after_an_error(run: Run, counted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "_PAUSE_S", 0.01)
    errors = [errno.ECONNABORTED, errno.ENOBUFS]
    accept = socket.socket.accept

    def failing(listener: socket.socket) -> Any:
        if errors:
            raise OSError(errors.pop(0), "on command")
        return accept(listener)

    async def main() -> None:
        server = await serve(counted)
        _, writer = await admitted(server)
        writer.close()
        await server.stop(0)

    monkeypatch.setattr(socket.socket, "accept", failing)
    run(main())
    assert errors == []
