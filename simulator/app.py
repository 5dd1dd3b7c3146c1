"""The OpenAI API of a simulated vLLM server."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simulator.config import Config
from simulator.engine import Engine, Sequence
from simulator.event_stream import EventStream
from simulator.metrics import Metrics
from simulator.prompt import block_hashes, token_count
from simulator.replica import Replica
from simulator.wire import ChatCompletion, Completion

MAX_BODY_BYTES = 16 << 20
_WORD = " token"


def create_app(config: Config) -> Starlette:
    """The server of one replica; its engine runs while the application lives."""
    engine = Engine(config.hardware)
    metrics = Metrics(engine, config.model)
    replica = Replica(engine, metrics, config.speed_factor)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(replica.run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def chat(request: Request) -> Response:
        return await _complete(config, replica, request, ChatCompletion)

    async def completions(request: Request) -> Response:
        return await _complete(config, replica, request, Completion)

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
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/models", models),
        Route("/health", health),
        Route("/metrics", metrics_page),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def _complete(config: Config, replica: Replica, request: Request, kind: type[Completion]) -> Response:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return _error(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    try:
        asked = msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        return _error(400, str(error))
    text = asked.text()
    hardware = config.hardware
    tokens = token_count(text)
    if not replica.engine.fits(tokens + asked.output_tokens):
        return _error(400, f"{tokens + asked.output_tokens} tokens don't fit into the KV cache")
    if tokens + asked.output_tokens > hardware.max_model_len:
        asked_for = f"{tokens} tokens in the messages, {asked.output_tokens} in the completion"
        return _error(400, f"This model's maximum context length is {hardware.max_model_len} tokens: {asked_for}")
    request_id = request.headers.get("x-request-id") or str(uuid.uuid4())
    hashes = block_hashes(text, hardware.block_tokens)
    # A client may send one x-request-id twice; the engine must still tell the two apart.
    sequence = Sequence(str(uuid.uuid4()), hashes, tokens, asked.output_tokens)
    headers = {"x-request-id": request_id, "x-inference-pod": config.name, "x-inference-port": str(config.port)}
    frame = _Frame(f"chatcmpl-{request_id}", asked.model, isinstance(asked, ChatCompletion), int(time.time()))
    if asked.stream:
        return EventStream(_events(replica, sequence, frame, asked.include_usage), headers)
    return await _whole(replica, sequence, frame, headers)


class _Frame(msgspec.Struct, frozen=True):
    """What every chunk of an answer says; the bytes around its text are made once."""

    id: str
    model: str
    chat: bool
    created: int

    def head(self, suffix: str = "") -> dict[str, Any]:
        kind = f"chat.completion{suffix}" if self.chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def chunk(self, text: str | None, finish_reason: str | None = None, role: bool = False) -> bytes:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason}
        if self.chat:
            delta = {"role": "assistant", "content": ""} if role else {} if text is None else {"content": text}
            choice["delta"] = delta
        else:
            choice["text"] = text or ""
        return _event({**self.head(".chunk"), "choices": [choice]})


async def _events(
    replica: Replica, sequence: Sequence, frame: _Frame, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    token = frame.chunk(_WORD)
    first = frame.chunk(None, role=True) if frame.chat else b""
    async with aclosing(replica.generate(sequence)) as generating:
        async for last in generating:
            # The last token and the end of the stream leave together, as they do in vLLM.
            yield first + (frame.chunk(_WORD, "length") if last else token)
            first = b""
    if include_usage:
        yield _event({**frame.head(".chunk"), "choices": [], "usage": _usage(sequence)})
    yield b"data: [DONE]\n\n"


async def _whole(replica: Replica, sequence: Sequence, frame: _Frame, headers: dict[str, str]) -> Response:
    async with aclosing(replica.generate(sequence)) as generating:
        async for _ in generating:
            pass
    text = _WORD * sequence.output_tokens
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
    choice |= {"message": {"role": "assistant", "content": text}} if frame.chat else {"text": text}
    return _json({**frame.head(), "choices": [choice], "usage": _usage(sequence)}, headers=headers)


def _usage(sequence: Sequence) -> dict[str, Any]:
    return {
        "prompt_tokens": sequence.prompt_tokens,
        "completion_tokens": sequence.output_tokens,
        "total_tokens": sequence.prompt_tokens + sequence.output_tokens,
        "prompt_tokens_details": {"cached_tokens": sequence.cached_tokens},
    }


def _event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def _error(status: int, message: str) -> Response:
    return _json({"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}, status)
