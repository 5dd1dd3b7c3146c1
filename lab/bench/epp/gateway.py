"""A gateway's conversation with an endpoint picker about one request, message by message.

The messages are Envoy's. They are serialised once; only the request's id is inserted for each request.
"""

import time
import uuid
from dataclasses import dataclass, field
from functools import cache

import msgspec
import numpy as np

from epp.extproc.protocol.base_pb2 import HeaderMap, HeaderValue
from epp.extproc.protocol.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)
from epp.extproc.protocol.processing_mode_pb2 import ProcessingMode
from lab.bench.epp.http2 import CallFailedError, Script, message

MODEL = "simulated-70b"
METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
DESTINATION_HEADER = "x-gateway-destination-endpoint"
SLO_HEADERS = {"x-prediction-based-scheduling": "true", "x-slo-ttft-ms": "2000", "x-slo-tpot-ms": "60"}
VARIANTS = 32
_CHUNK_BYTES = 64 << 10
_LETTERS = np.frombuffer(b"etaoinshrdlucmfw      ", np.uint8)
_ID = "00000000-0000-4000-8000-000000000000"
_EVENT = (
    'data: {"id":"chatcmpl-8f1c2a","object":"chat.completion.chunk","created":1760000000,"model":"simulated-70b",'
    '"choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]%s}\n\n'
)
_BodyMode = ProcessingMode.BodySendMode


@dataclass(frozen=True)
class Shape:
    """A kind of request.

    With `full_duplex`, the client behaves like a gateway. Otherwise it behaves like an Envoy that buffers the request's
    body, and sends the response's body only if the picker asks for it.
    """

    slo: bool = False
    prompt_bytes: int = 800
    tokens: int = 1
    full_duplex: bool = True


@dataclass
class Tally:
    """Counts the response chunks that the picker has answered, over all requests."""

    chunks: int = 0


@dataclass
class Timing:
    """The times of one request, in seconds of time.perf_counter."""

    tally: Tally
    began_s: float = field(default_factory=time.perf_counter)
    picked_s: float = 0.0


def script(shape: Shape, request_id: str, variant: int, timing: Timing) -> Script:
    """Return the script of the whole conversation about one request."""
    play = _full_duplex if shape.full_duplex else _buffered
    return play(shape, request_id.encode(), variant % VARIANTS, timing)


def _full_duplex(shape: Shape, request_id: bytes, variant: int, timing: Timing) -> Script:
    """Send headers and body at once, and the response's chunks one by one, as a model generates them."""
    answer = _read((yield request_id.join(_request(shape, variant))))
    while not answer.request_body.response.body_mutation.streamed_response.end_of_stream:
        _note_pick(answer, timing)
        answer = _read((yield b""))
    _expect_pick(timing)
    answer = _read((yield _response_headers()))
    while not answer.HasField("response_headers"):
        answer = _read((yield b""))
    for chunk in _response_chunks(shape.tokens):
        answer = _read((yield chunk))
        timing.tally.chunks += 1
    while not answer.response_body.response.body_mutation.streamed_response.end_of_stream:
        answer = _read((yield b""))


def _buffered(shape: Shape, request_id: bytes, variant: int, timing: Timing) -> Script:
    """Send each message after the answer to the one before. Send the response's body only if the picker asks for it."""
    headers, body = _request_in_turn(shape, variant)
    _note_pick(_read((yield request_id.join(headers))), timing)
    _note_pick(_read((yield request_id.join(body))), timing)
    _expect_pick(timing)
    answer = _read((yield _response_headers()))
    if answer.mode_override.response_body_mode == _BodyMode.STREAMED:
        for chunk in _response_chunks(shape.tokens):
            _read((yield chunk))
            timing.tally.chunks += 1


def _read(data: bytes) -> ProcessingResponse:
    answer = ProcessingResponse.FromString(data)
    if answer.HasField("immediate_response"):
        refusal = answer.immediate_response
        raise CallFailedError(f"refused with {refusal.status.code}: {refusal.body.decode(errors='replace')[:200]}")
    return answer


def _note_pick(answer: ProcessingResponse, timing: Timing) -> None:
    if timing.picked_s:
        return
    part = answer.request_headers if answer.HasField("request_headers") else answer.request_body
    if any(option.header.key == DESTINATION_HEADER for option in part.response.header_mutation.set_headers):
        timing.picked_s = time.perf_counter()


def _expect_pick(timing: Timing) -> None:
    if not timing.picked_s:
        raise CallFailedError(f"no answer to the request set {DESTINATION_HEADER}")


@cache
def _request(shape: Shape, variant: int) -> tuple[bytes, ...]:
    """Return all messages of the request, split where the request's id belongs."""
    body = _body(shape.prompt_bytes, shape.tokens, variant)
    pieces = [body[at : at + _CHUNK_BYTES] for at in range(0, len(body), _CHUNK_BYTES)]
    messages = [_request_headers(shape, len(body))]
    messages += [
        ProcessingRequest(request_body=HttpBody(body=piece, end_of_stream=index == len(pieces) - 1))
        for index, piece in enumerate(pieces)
    ]
    return _split_template(b"".join(message(part.SerializeToString()) for part in messages), 2)


@cache
def _request_in_turn(shape: Shape, variant: int) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    body = _body(shape.prompt_bytes, shape.tokens, variant)
    headers = _request_headers(shape, len(body)).SerializeToString()
    whole = ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=True)).SerializeToString()
    return _split_template(message(headers), 1), _split_template(message(whole), 1)


def _split_template(template: bytes, ids: int) -> tuple[bytes, ...]:
    pieces = tuple(template.split(_ID.encode()))
    if len(pieces) != ids + 1:
        raise RuntimeError(f"expected {ids} places for the request's id, found {len(pieces) - 1}")
    return pieces


def request_of(*, slo: bool, variant: int) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a new request, without ext_proc messages."""
    request_id = str(uuid.uuid4())
    body = _body(Shape.prompt_bytes, Shape.tokens, variant % VARIANTS).replace(_ID.encode(), request_id.encode())
    return _header_values(slo, len(body), request_id), body


def _header_values(slo: bool, body_bytes: int, request_id: str) -> dict[str, str]:
    return {
        ":authority": "inference.example.com",
        ":path": "/v1/chat/completions",
        ":method": "POST",
        ":scheme": "http",
        "user-agent": "AsyncOpenAI/Python 1.99.1",
        "accept": "application/json",
        "accept-encoding": "gzip, deflate",
        "authorization": "Bearer none",
        "content-type": "application/json",
        "content-length": str(body_bytes),
        "x-forwarded-proto": "http",
        "x-request-id": request_id,
        **(SLO_HEADERS if slo else {}),
    }


def _request_headers(shape: Shape, body_bytes: int) -> ProcessingRequest:
    full, part = _BodyMode.FULL_DUPLEX_STREAMED, _BodyMode.BUFFERED
    config = ProtocolConfiguration(
        request_body_mode=full if shape.full_duplex else part,
        response_body_mode=full if shape.full_duplex else _BodyMode.NONE,
    )
    return ProcessingRequest(
        request_headers=_headers(_header_values(shape.slo, body_bytes, _ID)), protocol_config=config
    )


def _headers(headers: dict[str, str]) -> HttpHeaders:
    values = [HeaderValue(key=key, raw_value=value.encode()) for key, value in headers.items()]
    return HttpHeaders(headers=HeaderMap(headers=values))


@cache
def _body(prompt_bytes: int, tokens: int, variant: int) -> bytes:
    """Return the body of a chat request, with a placeholder for the id in the middle of the prompt.

    So requests of one variant share the first half of the prompt as a prefix, and differ from the middle on.
    """
    random = np.random.default_rng(variant)
    letters = _LETTERS[random.integers(len(_LETTERS), size=prompt_bytes)].tobytes().decode()
    half = prompt_bytes // 2
    content = f"{letters[:half]}{_ID}{letters[half + len(_ID) :]}"
    messages = [{"role": "user", "content": content}]
    options = {"max_tokens": tokens, "temperature": 0.7, "stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode({"model": MODEL, "messages": messages, **options})


@cache
def _response_headers() -> bytes:
    headers = {
        ":status": "200",
        "date": "Wed, 25 Nov 2026 10:00:00 GMT",
        "server": "uvicorn",
        "content-type": "text/event-stream; charset=utf-8",
        "transfer-encoding": "chunked",
        "x-envoy-upstream-service-time": "12",
    }
    return message(ProcessingRequest(response_headers=_headers(headers)).SerializeToString())


@cache
def _response_chunks(tokens: int) -> tuple[bytes, ...]:
    """Return the response's chunks with one event each. The last one carries the usage and ends the stream."""
    usage = f',"usage":{{"prompt_tokens":200,"total_tokens":{200 + tokens},"completion_tokens":{tokens}}}'
    events = [_EVENT % "" for _ in range(tokens - 1)] + [_EVENT % usage + "data: [DONE]\n\n"]
    return tuple(
        message(
            ProcessingRequest(
                response_body=HttpBody(body=event.encode(), end_of_stream=index == tokens - 1)
            ).SerializeToString()
        )
        for index, event in enumerate(events)
    )
