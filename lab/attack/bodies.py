"""Requests whose bodies attack the picker. A gateway passes them on as any other, within the rules of HTTP/2."""

import asyncio
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import count, repeat
from typing import Final

from epp.extproc.front import PATH
from epp.extproc.protocol.base_pb2 import HeaderMap, HeaderValue
from epp.extproc.protocol.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)
from epp.extproc.protocol.processing_mode_pb2 import ProcessingMode
from lab.bench.epp.http2 import CallFailedError, Connection, Script, message

_LARGE_BYTES: Final = 31 << 20
_NAME_BYTES: Final = 20 << 20
_PIECE_BYTES: Final = 64 << 10
_AT_ONCE: Final = 4
_SCRAPE_S: Final = 1.0


def request_headers(body_mode: ProcessingMode.BodySendMode) -> bytes:
    """Return the headers of a request whose body is to be sent in this mode."""
    names = {":method": "POST", ":path": "/v1/completions", "content-type": "application/json"}
    headers = HeaderMap(headers=[HeaderValue(key=key, raw_value=value.encode()) for key, value in names.items()])
    mode = ProtocolConfiguration(request_body_mode=body_mode)
    return ProcessingRequest(request_headers=HttpHeaders(headers=headers), protocol_config=mode).SerializeToString()


def token_ids() -> Iterator[bytes]:
    """Send prompts of 31 MB of token ids."""
    return repeat(_request(b'{"model":"m","prompt":[' + b"100000," * (_LARGE_BYTES // 7) + b"1]}"))


def empty_lists() -> Iterator[bytes]:
    """Send prompts of 31 MB of empty lists, which are the slowest to parse."""
    return repeat(_request(b'{"model":"m","prompt":[' + b"[]," * (_LARGE_BYTES // 3) + b"[]]}"))


def invented_models() -> Iterator[bytes]:
    """Name another model in each request."""
    return (_request(b'{"model":"invented-%d","prompt":"p"}' % n) for n in count())


def long_names() -> Iterator[bytes]:
    """Name models of 20 MB."""
    name = b"n" * _NAME_BYTES
    return (_request(b'{"model":"%d-%b","prompt":"p"}' % (n, name)) for n in count())


BODY_ATTACKS: Final[Mapping[str, Callable[[], Iterator[bytes]]]] = {
    "31 MB of token ids": token_ids,
    "31 MB of empty lists": empty_lists,
    "invented models": invented_models,
    "model names of 20 MB": long_names,
}


async def attack(name: str, host: str, port: int, metrics_url: str) -> None:
    """Send a few requests at once, without end. Read the metrics page every second, as a monitoring system does."""
    loop = asyncio.get_running_loop()
    requests = BODY_ATTACKS[name]()
    reading = asyncio.create_task(_scrape(metrics_url))
    while not reading.done():
        with suppress(OSError):
            _, connection = await loop.create_connection(lambda: Connection(f"{host}:{port}", PATH), host, port)
            async with asyncio.TaskGroup() as workers:
                for _ in range(_AT_ONCE):
                    workers.create_task(_send(connection, requests))


async def _send(connection: Connection, requests: Iterator[bytes]) -> None:
    """Send one request after the other until the connection is lost."""
    while not connection.is_closed:
        with suppress(CallFailedError):
            await connection.call(_script(next(requests)))


async def _scrape(url: str) -> None:
    while True:
        with suppress(OSError):
            await asyncio.to_thread(_read, url)
        await asyncio.sleep(_SCRAPE_S)


def _read(url: str) -> None:
    with urllib.request.urlopen(url) as response:  # noqa: S310
        response.read()


def _request(body: bytes) -> bytes:
    """Return the messages of a request in full duplex."""
    pieces = [body[at : at + _PIECE_BYTES] for at in range(0, len(body), _PIECE_BYTES)]
    parts = [HttpBody(body=piece, end_of_stream=number == len(pieces)) for number, piece in enumerate(pieces, 1)]
    messages = [ProcessingRequest(request_body=part).SerializeToString() for part in parts]
    return b"".join(map(message, (request_headers(ProcessingMode.FULL_DUPLEX_STREAMED), *messages)))


def _script(request: bytes) -> Script:
    """Send the request, and end the stream when the picker has passed all of it on, or refused it."""
    answer = ProcessingResponse.FromString((yield request))
    while not _is_last(answer):
        answer = ProcessingResponse.FromString((yield b""))


def _is_last(answer: ProcessingResponse) -> bool:
    passed_on = answer.request_body.response.body_mutation.streamed_response
    return answer.HasField("immediate_response") or passed_on.end_of_stream
