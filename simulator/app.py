"""The OpenAI API of a simulated vLLM server."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from simulator.answer import DONE, Frame
from simulator.config import Config
from simulator.engine import Engine
from simulator.event_stream import EventStream, while_connected
from simulator.exceptions import RequestError
from simulator.hardware import Hardware
from simulator.metrics import CONTENT_TYPE, Metrics
from simulator.prompt import block_hashes, token_count
from simulator.replica import Replica
from simulator.sequence import Sequence
from simulator.wire import ChatCompletion, Completion, decode

if TYPE_CHECKING:
    from simulator.tracing import Tracing

MAX_BODY_BYTES = 16 << 20
# nginx's status for a client that closed the connection. Nobody reads it.
_CLIENT_CLOSED_REQUEST = 499


def create_app(config: Config) -> Starlette:
    """Return the server of one replica. Its engine runs as long as the application."""
    engine = Engine(config.hardware)
    metrics = Metrics(engine, config.model)
    replica = Replica(engine, metrics, config.speed_factor)
    tracing = _tracing(config)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(replica.run())
        yield
        if tracing:
            await asyncio.to_thread(tracing.close)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def chat(request: Request) -> Response:
        return await _complete(config, replica, tracing, request, ChatCompletion)

    async def completions(request: Request) -> Response:
        return await _complete(config, replica, tracing, request, Completion)

    async def models(request: Request) -> Response:
        card = {
            "id": config.model,
            "object": "model",
            "owned_by": "vllm",
            "max_model_len": config.hardware.max_model_len,
        }
        return _json({"object": "list", "data": [card]})

    async def health(request: Request) -> Response:
        return Response()

    async def metrics_page(request: Request) -> Response:
        return Response(metrics.page(), media_type=CONTENT_TYPE)

    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/models", models),
        Route("/health", health),
        Route("/metrics", metrics_page),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _refuse})


def _tracing(config: Config) -> "Tracing | None":
    if not config.otlp_traces_endpoint:
        return None
    # Its packages belong to an extra of their own.
    from simulator.tracing import Tracing

    return Tracing(config.otlp_traces_endpoint, config.name)


async def _complete(
    config: Config, replica: Replica, tracing: "Tracing | None", request: Request, kind: type[Completion]
) -> Response:
    try:
        asked = decode(await _body(request), kind)
        sequence = _sequence(asked, config.hardware, replica.engine)
    except RequestError as error:
        return _error(error.status, str(error))
    except ClientDisconnect:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    request_id = request.headers.get("x-request-id") or str(uuid.uuid4())
    headers = {"x-request-id": request_id, "x-inference-pod": config.name, "x-inference-port": str(config.port)}
    frame = Frame(request_id, asked.model, isinstance(asked, ChatCompletion), int(time.time()))
    generating = replica.generate(sequence)
    if tracing:
        generating = tracing.follow(generating, sequence, request.headers)
    if asked.stream:
        return EventStream(_events(generating, sequence, frame, asked.include_usage), headers)
    try:
        if not await while_connected(request.receive, _drain(generating)):
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
    except asyncio.CancelledError:
        return _error(503, "the server is stopping")
    return Response(frame.whole(sequence), headers=headers, media_type="application/json")


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise RequestError(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _sequence(asked: Completion, hardware: Hardware, engine: Engine) -> Sequence:
    text = asked.text()
    prompt, output = token_count(text), asked.output_tokens
    if not engine.fits(prompt + output):
        raise RequestError(400, f"{prompt + output} tokens don't fit into the KV cache")
    if prompt + output > hardware.max_model_len:
        parts = f"{prompt} tokens in the prompt, {output} in the completion"
        raise RequestError(400, f"this model's maximum context length is {hardware.max_model_len} tokens: {parts}")
    # The engine needs a unique id, and a client may send the same x-request-id twice.
    hashes = block_hashes(text, hardware.block_tokens)
    return Sequence(str(uuid.uuid4()), hashes, prompt, output, priority=asked.priority)


async def _events(
    generating: AsyncGenerator[bool, None], sequence: Sequence, frame: Frame, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    first, token = frame.role_chunk(), frame.token_chunk()
    async with aclosing(generating):
        async for last in generating:
            yield first + (frame.token_chunk(last=True) if last else token)
            first = b""
    if include_usage:
        yield frame.usage_chunk(sequence)
    yield DONE


async def _drain(generating: AsyncGenerator[bool, None]) -> None:
    async with aclosing(generating):
        async for _ in generating:
            pass


async def _refuse(request: Request, error: Any) -> Response:
    """Answer an unknown path or a wrong method with the API's error format."""
    return _error(error.status_code, error.detail, error.headers)


def _json(value: Any, status: int = 200, headers: Any = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def _error(status: int, message: str, headers: Any = None) -> Response:
    kind = HTTPStatus(status).phrase.replace(" ", "") + "Error"
    return _json({"error": {"message": message, "type": kind, "param": None, "code": status}}, status, headers)
