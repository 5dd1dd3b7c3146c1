"""gRPC server reflection, which tells grpcurl and similar tools what a port serves."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from typing import Final

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
        parsed = (ServerReflectionRequest.FromString(request) async for request in requests)
        async for answer in servicer.ServerReflectionInfo(parsed, None):
            yield answer.SerializeToString()

    return dict.fromkeys(_PATHS, info)
