import asyncio
from collections.abc import Iterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from serving import bodies, connection
from serving.bodies import BodyError, BodyMemory, read_body
from serving.connection import LimitedProtocol
from tests.live import PATIENCE_S, live


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.1)
    with live(answer, http=LimitedProtocol) as url:
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


WHOLE = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET / HT", WHOLE[:-2]])
async def test_a_partial_request_head_times_out(address: tuple[str, int], sent: bytes) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(sent)
    assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
    writer.close()


async def test_a_partial_second_request_head_times_out(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(WHOLE + WHOLE[:20])
    assert (await asyncio.wait_for(reader.read(), PATIENCE_S)).count(b"HTTP/1.1 200") == 1
    writer.close()


async def test_whole_requests_keep_a_connection_open_beyond_the_head_timeout(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    began_s = asyncio.get_running_loop().time()
    answers = 0
    while asyncio.get_running_loop().time() < began_s + 0.3:
        writer.write(WHOLE)
        assert await reader.readuntil(b"{}")
        answers += 1
    assert answers > 1
    writer.close()


async def test_a_head_without_end_is_refused(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", PATIENCE_S)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(WHOLE[:-2] + b"x: %s\r\n" % (b"y" * 100) * 1_000)
    assert (await asyncio.wait_for(reader.read(), PATIENCE_S)).startswith(b"HTTP/1.1 431")
    writer.close()


async def test_a_body_that_nobody_reads_times_out(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BODY_TIMEOUT_S", 0.1)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    assert (await asyncio.wait_for(reader.read(), PATIENCE_S)).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_too_many_connections_are_told_to_come_back_and_served_ones_stay() -> None:
    with live(answer, http=LimitedProtocol, limit_concurrency=4) as url:
        host, port = url.removeprefix("http://").split(":")
        served = [await asyncio.open_connection(host, int(port)) for _ in range(4)]
        for reader, writer in served:
            writer.write(WHOLE)
            assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200")
        refused = await asyncio.open_connection(host, int(port))
        refused[1].write(WHOLE)
        told = await asyncio.wait_for(refused[0].read(), PATIENCE_S)
        assert told.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in told
        for reader, writer in served:
            writer.write(WHOLE)
            assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200")
            writer.close()
        refused[1].close()


async def test_far_too_many_connections_are_closed_at_once() -> None:
    with live(answer, http=LimitedProtocol, limit_concurrency=4) as url:
        host, port = url.removeprefix("http://").split(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(10)]
        closed = await asyncio.wait_for(opened[-1][0].read(), PATIENCE_S)
        assert closed == b""
        opened[0][1].write(WHOLE)
        assert (await opened[0][0].readuntil(b"{}")).startswith(b"HTTP/1.1 200")
        for _, writer in opened:
            writer.close()


class Arriving:
    """The messages of a body that arrives in pieces; then nothing more, or the client's end."""

    def __init__(self, *pieces: bytes, ends: bool = True) -> None:
        self._messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        if ends:
            self._messages.append({"type": "http.disconnect"})

    async def __call__(self) -> Message:
        if not self._messages:
            await asyncio.sleep(PATIENCE_S)
        return self._messages.pop(0)


@pytest.mark.parametrize(
    ("pieces", "ends", "status"),
    [((), True, 400), ((b"a",), True, 400), ((b"a",), False, 408), ((b"a" * 6, b"a" * 6), False, 413)],
)
async def test_a_body_that_can_not_be_read_has_a_status(
    monkeypatch: pytest.MonkeyPatch, pieces: tuple[bytes, ...], ends: bool, status: int
) -> None:
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.05)
    memory = BodyMemory(1_000)
    with pytest.raises(BodyError) as caught:
        await read_body(Arriving(*pieces, ends=ends), 10, memory)
    assert caught.value.status == status
    assert memory.held_bytes == 0


async def test_bodies_that_arrive_together_are_bounded_together() -> None:
    memory = BodyMemory(1_000)
    waiting = [asyncio.create_task(read_body(Arriving(b"a" * 300, ends=False), 500, memory)) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert memory.held_bytes == 900
    with pytest.raises(BodyError) as caught:
        await read_body(Arriving(b"a" * 300), 500, memory)
    assert caught.value.status == 503
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert memory.held_bytes == 0
