"""A model server that answers wrongly, in one of several ways."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final

_ADAPTERS: Final = 300_000
_PIECE: Final = 1 << 16
_BREAK_S: Final = 0.1
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\nconnection: close\r\n\r\n"
_STREAM: Final = _HEAD % b"text/event-stream"
_CHUNKED: Final = _STREAM.removesuffix(b"\r\n") + b"transfer-encoding: chunked\r\n\r\n"
_PAGE: Final = _HEAD % b"text/plain; version=0.0.4"
_EVENT: Final = b'data: {"choices": [{"index": 0, "text": "word", "delta": {"content": "word"}}]}\n\n'
_IDLE: Final = b"vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0\n"


async def _errors(path: str) -> AsyncIterator[bytes]:
    if path == "/metrics":
        yield _PAGE + _IDLE
    else:
        yield b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


async def _resets(path: str) -> AsyncIterator[bytes]:
    if path == "/metrics":
        yield _PAGE + _IDLE


async def _garbage(path: str) -> AsyncIterator[bytes]:
    yield _PAGE + _IDLE if path == "/metrics" else b"\x00\xff" * 1000


async def _half_a_stream(path: str) -> AsyncIterator[bytes]:
    yield _PAGE + _IDLE if path == "/metrics" else _STREAM + _EVENT


async def _broken_stream(path: str) -> AsyncIterator[bytes]:
    # In chunks, and without the last one. Otherwise the end of the connection is that of the answer.
    yield _PAGE + _IDLE if path == "/metrics" else _CHUNKED + b"%x\r\n%s\r\n" % (len(_EVENT), _EVENT)
    # The client has got this event when the stream breaks.
    await asyncio.sleep(_BREAK_S)


async def _adapters(path: str) -> AsyncIterator[bytes]:
    if path != "/metrics":
        yield _STREAM + _EVENT + b"data: [DONE]\n\n"
        return
    names = ",".join(f"adapter-{n}" for n in range(_ADAPTERS)).encode()
    yield _PAGE + _IDLE
    yield b'vllm:lora_requests_info{max_lora="%d",running_lora_adapters="%s",waiting_lora_adapters=""} 1\n' % (
        _ADAPTERS,
        names,
    )


async def _endless_metrics(path: str) -> AsyncIterator[bytes]:
    yield (_PAGE + _IDLE if path == "/metrics" else _STREAM + _EVENT + b"data: [DONE]\n\n")
    while path == "/metrics":
        yield b"# " + b"x" * _PIECE + b"\n"


async def _endless_header(path: str) -> AsyncIterator[bytes]:
    if path != "/metrics":
        yield _STREAM + _EVENT + b"data: [DONE]\n\n"
        return
    yield b"HTTP/1.1 200 OK\r\nx-endless: "
    while True:
        yield b"x" * _PIECE


ANSWERS: Final[dict[str, Callable[[str], AsyncIterator[bytes]]]] = {
    "500 to every request": _errors,
    "resets every connection": _resets,
    "garbage in place of HTTP": _garbage,
    "half a stream": _half_a_stream,
    "a stream that breaks": _broken_stream,
    "300,000 adapters": _adapters,
    "metrics without end": _endless_metrics,
    "a header without end": _endless_header,
}


class Rogue:
    """Listens on a port of 127.0.0.1, and answers every request in one of the ways of ANSWERS."""

    def __init__(self, port: int, way: str) -> None:
        self._port = port
        self._answer = ANSWERS[way]
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
                sent = False
                async for piece in self._answer(path):
                    writer.write(piece)
                    await writer.drain()
                    sent = True
                if sent:
                    # Read what is left of the request: closing earlier would reset the connection.
                    writer.write_eof()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(1):
                            await reader.read()
        finally:
            self._open.discard(writer)
            writer.transport.abort()
