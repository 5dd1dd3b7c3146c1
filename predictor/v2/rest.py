"""The Open Inference Protocol v2 over REST, with Triton's extensions for the model repository and statistics.

https://github.com/kserve/open-inference-protocol, https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

import gzip
import re
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from predictor.answering import Run, count, count_failure, run_inline_or_in_thread
from predictor.config import Config
from predictor.engine import Engine
from predictor.exceptions import InputError, PredictorError
from predictor.http import JSON, Handler, HttpHeader, encode, error, header, json, read_body, send_bytes, send_json
from predictor.model import Model
from predictor.refusals import http_status
from predictor.repository import Repository
from predictor.v2.descriptions import is_ready, model_config, model_metadata, server_metadata, statistics
from predictor.v2.inference import infer
from predictor.v2.json_body import read_request, write_answer

T = TypeVar("T", bound=msgspec.Struct)
_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
# Smallest answer that is worth compressing.
_COMPRESS_BYTES = 1024
_UNSERVED = {
    "/v2/systemsharedmemory/{rest:path}": "shared memory",
    "/v2/cudasharedmemory/{rest:path}": "shared memory",
    "/v2/trace/{rest:path}": "tracing",
    "/v2/models/{model}/trace/{rest:path}": "tracing",
    "/v2/logging": "log settings",
}


class IndexRequest(msgspec.Struct, frozen=True):
    ready: bool = False


class LoadRequest(msgspec.Struct, frozen=True):
    parameters: dict[str, Any] = {}


def inference_handler(config: Config, engine: Engine) -> tuple[re.Pattern[str], Handler]:
    """Return the pattern of inference paths, and their handler."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        began_ns = time.perf_counter_ns()
        match = _INFER.fullmatch(scope["path"])
        name, number = (match[1], match[2]) if match else ("", None)
        try:
            model = engine.find(name, parse_version(number))
            body = await read_body(scope, receive, config.max_body_bytes)
            length = header(scope, b"inference-header-content-length")
            (answer, head, run), queue_ns = await run_inline_or_in_thread(len(body), _answer, model, body, length)
        except PredictorError as problem:
            count_failure(engine, name, began_ns)
            await send_json(send, encode({"error": str(problem)}), http_status(problem))
            return
        count(engine, run, queue_ns)
        headers: list[HttpHeader] = [JSON]
        if head is not None:
            headers = [(b"content-type", b"application/octet-stream"), _length(head)]
        answer, coding = _compressed(scope, answer)
        await send_bytes(send, answer, [*headers, *coding])

    return _INFER, handle


def routes(config: Config, engine: Engine, repository: Repository) -> list[Route]:
    """Return all routes of /v2 except inference."""

    async def metadata(request: Request) -> Response:
        return json(server_metadata())

    async def live(request: Request) -> Response:
        return json({"live": True})

    async def ready(request: Request) -> Response:
        now = is_ready(engine, repository.mode)
        return json({"ready": now}, 200 if now else 503)

    async def model_ready(request: Request) -> Response:
        model = _model(engine, request)
        return json({"name": model.name, "ready": True})

    async def model(request: Request) -> Response:
        found = _model(engine, request)
        return json(model_metadata(engine.served_model(found.name), found))

    async def configuration(request: Request) -> Response:
        found = _model(engine, request)
        return json(model_config(engine.served_model(found.name), found))

    async def stats(request: Request) -> Response:
        name, number = request.path_params.get("model"), request.path_params.get("version")
        return json(statistics(engine, name, parse_version(number)))

    async def index(request: Request) -> Response:
        asked = _decode(await _body(config, request), IndexRequest)
        return json(repository.index(asked.ready))

    async def load(request: Request) -> Response:
        asked = _decode(await _body(config, request), LoadRequest)
        refuse_load_parameters(asked.parameters)
        await repository.load(request.path_params["model"])
        return json({})

    async def unload(request: Request) -> Response:
        _decode(await _body(config, request), LoadRequest)
        await repository.unload(request.path_params["model"])
        return json({})

    one, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    post = ["POST"]
    return [
        Route("/v2", metadata),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2/models/stats", _with_errors(stats)),
        *(Route(f"{path}/ready", _with_errors(model_ready)) for path in (one, version)),
        *(Route(f"{path}/config", _with_errors(configuration)) for path in (one, version)),
        *(Route(f"{path}/stats", _with_errors(stats)) for path in (one, version)),
        *(Route(path, _with_errors(model)) for path in (one, version)),
        Route("/v2/repository/index", _with_errors(index), methods=post),
        Route("/v2/repository/models/{model}/load", _with_errors(load), methods=post),
        Route("/v2/repository/models/{model}/unload", _with_errors(unload), methods=post),
        *(Route(path, _not_served(what), methods=["GET", "POST"]) for path, what in _UNSERVED.items()),
    ]


def parse_version(text: str | None) -> int | None:
    """Parse a version's number; return None for no text."""
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise InputError(f"version {text!r:.50}: expected a number")
    return int(text)


def refuse_load_parameters(parameters: Any) -> None:
    """Refuse any parameters: Triton accepts a configuration or files in them, but here models come from the store."""
    if parameters:
        raise InputError(f"parameters: {min(parameters)!r:.50} is not supported; models come only from the store")


def _answer(model: Model, body: bytes, header_length: bytes | None) -> tuple[bytes, int | None, Run]:
    began_ns = time.perf_counter_ns()
    document, given = read_request(body, header_length)
    answered, run = infer(model, given, [output.name for output in document.outputs], began_ns)
    ran_ns = time.perf_counter_ns()
    answer, head = write_answer(model, document, answered)
    return answer, head, replace(run, output_ns=time.perf_counter_ns() - ran_ns)


def _length(head: int) -> HttpHeader:
    return b"inference-header-content-length", b"%d" % head


def _compressed(scope: Scope, body: bytes) -> tuple[bytes, list[HttpHeader]]:
    accepted = header(scope, b"accept-encoding")
    if not accepted or len(body) < _COMPRESS_BYTES:
        return body, []
    if b"gzip" in accepted:
        return gzip.compress(body, 1), [(b"content-encoding", b"gzip")]
    if b"deflate" in accepted:
        return zlib.compress(body, 1), [(b"content-encoding", b"deflate")]
    return body, []


def _model(engine: Engine, request: Request) -> Model:
    return engine.find(request.path_params["model"], parse_version(request.path_params.get("version")))


async def _body(config: Config, request: Request) -> bytes:
    return await read_body(request.scope, request.receive, config.max_body_bytes)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise InputError(f"the request: {problem}") from problem


def _with_errors(route: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answered(request: Request) -> Response:
        try:
            return await route(request)
        except PredictorError as problem:
            return error(http_status(problem), str(problem))

    return answered


def _not_served(what: str) -> Callable[[Request], Awaitable[Response]]:
    async def refuse(request: Request) -> Response:
        return error(404, f"{what}: not served by this server; GET /v2 lists the extensions that are")

    return refuse
