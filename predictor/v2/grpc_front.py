"""The Open Inference Protocol v2 over gRPC."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from predictor.answering import Run, count, count_failure, run_inline_or_in_thread
from predictor.engine import Engine
from predictor.exceptions import (
    ConflictError,
    InputError,
    ModelError,
    NotLoadedError,
    OverloadedError,
    PredictorError,
    UnsupportedError,
)
from predictor.model import Model
from predictor.protocol import inference_pb2 as pb
from predictor.repository import Repository
from predictor.v2.descriptions import is_ready, model_config, model_metadata, server_metadata, statistics
from predictor.v2.grpc_tensors import read_request, write_answer
from predictor.v2.inference import infer
from predictor.v2.rest import parse_version, refuse_load_parameters
from serving import grpc_listening
from serving.certificates import CertificateFolder
from serving.grpc_auth import GrpcTokens
from serving.listening import Address
from serving.token_file import TokenFile

SERVICE = "inference.GRPCInferenceService"
# Methods that need no token: probes have none.
_OPEN_METHODS = frozenset({f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady"})
# Calls at the same time. grpcio refuses others with RESOURCE_EXHAUSTED.
_MOST_CALLS = 1_000
Method = Callable[[Any], Awaitable[Message]]

_STATUSES: dict[type[PredictorError], grpc.StatusCode] = {
    ConflictError: grpc.StatusCode.FAILED_PRECONDITION,
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    ModelError: grpc.StatusCode.INVALID_ARGUMENT,
    NotLoadedError: grpc.StatusCode.NOT_FOUND,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
}
_UNSERVED = (
    *(f"{kind}SharedMemory{act}" for kind in ("System", "Cuda") for act in ("Status", "Register", "Unregister")),
    "TraceSetting",
    "LogSettings",
)


@asynccontextmanager
async def grpc_serving(
    address: Address,
    engine: Engine,
    repository: Repository,
    certificates: CertificateFolder | None,
    tokens: TokenFile | None,
    *,
    max_body_bytes: int,
    grace_s: float,
) -> AsyncIterator[None]:
    """Serve within the context; raise StartError if the port is taken.

    With certificates, serve over TLS. With tokens, serve only callers that send one.
    At the end, running calls get `grace_s` seconds to finish.
    """
    handlers = _handlers(_Service(engine, repository))
    guards = [GrpcTokens(tokens, _OPEN_METHODS)] if tokens else []
    server = grpc_listening.listen(
        address, handlers, certificates, max_body_bytes, interceptors=guards, most_calls=_MOST_CALLS
    )[0]
    await server.start()
    try:
        yield
    finally:
        await server.stop(grace_s)


class _Service:
    """The protocol's methods, under their own names; they raise PredictorError to refuse a request."""

    def __init__(self, engine: Engine, repository: Repository) -> None:
        self._engine = engine
        self._repository = repository

    async def ServerLive(self, request: pb.ServerLiveRequest) -> Message:  # noqa: N802 (the protocol's name, as below)
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest) -> Message:  # noqa: N802
        return pb.ServerReadyResponse(ready=is_ready(self._engine, self._repository.mode))

    async def ModelReady(self, request: pb.ModelReadyRequest) -> Message:  # noqa: N802
        try:
            self._find(request)
        except NotLoadedError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest) -> Message:  # noqa: N802
        return pb.ServerMetadataResponse(**server_metadata())

    async def ModelMetadata(self, request: pb.ModelMetadataRequest) -> Message:  # noqa: N802
        model = self._find(request)
        return ParseDict(model_metadata(self._engine.served_model(model.name), model), pb.ModelMetadataResponse())

    async def ModelConfig(self, request: pb.ModelConfigRequest) -> Message:  # noqa: N802
        model = self._find(request)
        config = model_config(self._engine.served_model(model.name), model)
        return ParseDict({"config": config}, pb.ModelConfigResponse())

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest) -> Message:  # noqa: N802
        stats = statistics(self._engine, request.name or None, parse_version(request.version))
        return ParseDict(stats, pb.ModelStatisticsResponse())

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest) -> Message:  # noqa: N802
        entry = pb.RepositoryIndexResponse.ModelIndex
        return pb.RepositoryIndexResponse(
            models=[
                entry(name=one.name, version=one.version, state=one.state, reason=one.reason)
                for one in self._repository.index(request.ready)
            ]
        )

    async def RepositoryModelLoad(self, request: pb.RepositoryModelLoadRequest) -> Message:  # noqa: N802
        refuse_load_parameters(dict(request.parameters))
        await self._repository.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: pb.RepositoryModelUnloadRequest) -> Message:  # noqa: N802
        await self._repository.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def ModelInfer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:  # noqa: N802
        began_ns = time.perf_counter_ns()
        name = request.model_name
        try:
            model = self._engine.find(name, parse_version(request.model_version))
            (answer, run), queue_ns = await run_inline_or_in_thread(request.ByteSize(), _answer, model, request)
        except PredictorError:
            count_failure(self._engine, name, began_ns)
            raise
        count(self._engine, run, queue_ns)
        return answer

    def _find(self, request: Any) -> Model:
        return self._engine.find(request.name, parse_version(request.version))


def _answer(model: Model, request: pb.ModelInferRequest) -> tuple[pb.ModelInferResponse, Run]:
    began_ns = time.perf_counter_ns()
    answered, run = infer(model, read_request(request), [output.name for output in request.outputs], began_ns)
    ran_ns = time.perf_counter_ns()
    answer = write_answer(model, request.id, answered)
    return answer, replace(run, output_ns=time.perf_counter_ns() - ran_ns)


def _handlers(service: _Service) -> grpc.GenericRpcHandler:
    methods: dict[str, grpc.RpcMethodHandler] = {
        method.name: grpc.unary_unary_rpc_method_handler(
            _unary(getattr(service, method.name)),
            request_deserializer=getattr(pb, method.input_type.name).FromString,
            response_serializer=_serialize,
        )
        for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
        if not method.client_streaming
    }
    methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        _streaming(service),
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=_serialize,
    )
    for name in _UNSERVED:
        methods[name] = grpc.unary_unary_rpc_method_handler(_refuse(name))
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _unary(method: Method) -> Callable[[Any, Any], Awaitable[Message]]:
    async def call(request: Any, context: Any) -> Message:
        try:
            return await method(request)
        except PredictorError as error:
            await context.abort(_status(error), str(error))
            raise  # never reached: abort raises

    return call


def _streaming(service: _Service) -> Callable[[AsyncIterator[Any], Any], AsyncIterator[Message]]:
    """Return a handler that answers a stream's requests in order. A refused request does not end the stream."""

    async def stream(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Message]:
        async for request in requests:
            try:
                yield pb.ModelStreamInferResponse(infer_response=await service.ModelInfer(request))
            except PredictorError as error:
                refused = pb.ModelInferResponse(id=request.id, model_name=request.model_name)
                yield pb.ModelStreamInferResponse(error_message=str(error), infer_response=refused)

    return stream


def _refuse(name: str) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def refuse(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name}: not served by this server")
        return b""

    return refuse


def _status(error: PredictorError) -> grpc.StatusCode:
    if isinstance(error, NotLoadedError) and not error.any_loaded:
        return grpc.StatusCode.UNAVAILABLE
    return _STATUSES[type(error)]
