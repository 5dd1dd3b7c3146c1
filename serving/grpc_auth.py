"""Admits only gRPC callers that send a bearer token. The module is separate, because not every image has grpcio."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from serving.token_file import REFUSAL, TokenFile


class GrpcTokens(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """Refuses calls without a token with UNAUTHENTICATED, except for `open_methods`, which are full names."""

    def __init__(self, tokens: TokenFile, open_methods: frozenset[str]) -> None:
        self._tokens = tokens
        self._open_methods = open_methods
        # A stream is refused before it sends anything.
        self._refusing = grpc.stream_stream_rpc_method_handler(_refuse)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        is_open = handler_call_details.method in self._open_methods
        if is_open or self._admits(handler_call_details):
            return await continuation(handler_call_details)
        return self._refusing

    def _admits(self, call: grpc.HandlerCallDetails) -> bool:
        given = [value for name, value in call.invocation_metadata if name == "authorization"]
        return len(given) == 1 and self._tokens.admits(given[0].encode())


async def _refuse(requests: AsyncIterator[bytes], context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, REFUSAL)
