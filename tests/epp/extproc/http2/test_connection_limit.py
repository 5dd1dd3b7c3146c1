"""Refuse connections beyond a number, over real sockets."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from epp.extproc import grpc_front
from epp.extproc.http2 import frames as h2
from epp.extproc.http2.front import Http2Server, listen
from epp.extproc.rpc import Services
from epp.extproc.tls import Certificates
from serving.listening import Address
from tests.epp.extproc.http2.peer import fault, read_all
from tests.live import PATIENCE_S

GREETING = h2.PREFACE + h2.settings_frame({})
PING = h2.frame(h2.PING, 0, 0, bytes(8))
PONG = h2.frame(h2.PING, h2.ACK, 0, bytes(8))

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def refused() -> list[str]:
    """Return the kinds of floods that the server counts."""
    return []


@pytest.fixture
async def server(refused: list[str]) -> AsyncIterator[Http2Server]:
    server = await listen(Address("127.0.0.1", 0), Services(max_connections=2, count_flood=refused.append), None)
    yield server
    await server.stop(0)


async def connect(server: Http2Server) -> Streams:
    return await asyncio.open_connection("127.0.0.1", server.port)


async def admitted(server: Http2Server) -> Streams:
    """Connect, and wait for the answer to a PING."""
    reader, writer = await connect(server)
    writer.write(GREETING + PING)
    await reader.readuntil(PONG)
    return reader, writer


async def test_connections_beyond_the_limit_are_refused_until_others_end(
    server: Http2Server, refused: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = [await admitted(server) for _ in range(2)]
    for _ in range(3):
        reader, writer = await connect(server)
        assert fault(read_all(await reader.read())) == ("connection", h2.ErrorCode.ENHANCE_YOUR_CALM)
        writer.close()
    assert refused == ["connections"] * 3
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("refused a connection from 127.0.0.1:")
    assert line.endswith(": --max-connections are open")
    first[1].write(PING)
    await first[0].readuntil(PONG)
    second[1].close()
    while len(server._connections) > 1:
        await asyncio.sleep(0)
    third = await admitted(server)
    for _, writer in (first, third):
        writer.close()
    assert refused == ["connections"] * 3


async def test_refused_connections_do_not_gather(
    server: Http2Server, refused: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are told why may stay for a second. A flood of others is cut off at once."""
    monkeypatch.setattr("epp.extproc.http2.front._TOLD_AT_ONCE", 3)
    open_ones = [await admitted(server) for _ in range(2)]
    open_ones += [await connect(server) for _ in range(10)]
    while len(refused) < 10:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(server._connections) <= 2 + 3
    for _, writer in open_ones:
        writer.close()


async def test_grpcio_bounds_connections_with_those_in_handshake() -> None:
    server = await grpc_front.listen(Address("127.0.0.1", 0), Services(max_connections=2), Certificates())
    silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
    reading = [asyncio.create_task(reader.read()) for reader, _ in silent]
    done, _ = await asyncio.wait(reading, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [b""]
    for _, writer in silent:
        writer.close()
    await server.stop(0)
    await asyncio.gather(*reading, return_exceptions=True)
