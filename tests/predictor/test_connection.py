import asyncio
from collections.abc import Iterator

import pytest
from starlette.types import Receive, Scope, Send

from predictor import connection
from predictor.connection import HeadTimeoutProtocol
from predictor.http import send_json
from tests.live import PATIENCE_S, live


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send_json(send, b"{}")


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.1)
    with live(answer, http=HeadTimeoutProtocol) as url:
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
