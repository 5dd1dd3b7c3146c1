"""gRPC server reflection, which tells grpcurl and similar tools what a port serves."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from typing import Final

from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

# Imported so that reflection finds its descriptors.
from epp.extproc.protocol import external_processor_pb2 as _extproc  # noqa: F401
from epp.extproc.rpc import Method

# Both versions have the same messages on the wire. grpc_reflection implements only the older name.
_PATHS: Final = (
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
)


def reflection_methods(services: Iterable[str]) -> Mapping[str, Method]:
    """Return the reflection methods, which list `services` and reflection itself."""
    servicer = reflection.aio.ReflectionServicer([*services, reflection.SERVICE_NAME])

    async def info(requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for data in requests:
            request = ServerReflectionRequest.FromString(data)
            async for answer in servicer.ServerReflectionInfo(_one(_of_service(request)), None):
                answer.original_request.CopyFrom(request)
                yield answer.SerializeToString()

    return dict.fromkeys(_PATHS, info)


def _of_service(request: ServerReflectionRequest) -> ServerReflectionRequest:
    """Return a request for the service instead of one for its method, which the pool of descriptors can't resolve."""
    try:
        method = descriptor_pool.Default().FindMethodByName(request.file_containing_symbol)
    except KeyError:
        return request
    return ServerReflectionRequest(file_containing_symbol=method.containing_service.full_name)


async def _one(request: ServerReflectionRequest) -> AsyncIterator[ServerReflectionRequest]:
    yield request
