"""The standard gRPC health service: the process says what it can do, and probes and gateways ask or watch.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from typing import Final

from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)

from epp.extproc.rpc import Method, RpcError, StatusCode

SERVICE: Final = "grpc.health.v1.Health"
# The process is alive as long as it answers; a process that drains is, too.
LIVENESS: Final = "liveness"
READINESS: Final = "readiness"

_SERVING: Final = HealthCheckResponse.SERVING
_NOT_SERVING: Final = HealthCheckResponse.NOT_SERVING
_UNKNOWN: Final = HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """Services by name, none of them serving at first but `liveness`, if it is among them."""

    def __init__(self, services: Iterable[str]) -> None:
        self._serving = {service: service == LIVENESS for service in services}
        self._draining = False
        # Set, and replaced by a new one, at every change.
        self._changed = asyncio.Event()

    def set(self, service: str, serving: bool) -> None:
        """Says whether a service serves. Without effect once the process drains."""
        if not self._draining and self._serving.get(service) != serving:
            self._serving[service] = serving
            self._tell()

    def set_all(self, serving: bool) -> None:
        """The same for all services but `liveness`."""
        for service in self._serving.keys() - {LIVENESS}:
            self.set(service, serving)

    def drain(self) -> None:
        """The process is about to end: nothing serves any more, and whoever watches is told and sent away."""
        self.set_all(False)
        self._draining = True
        self._tell()

    @property
    def methods(self) -> Mapping[str, Method]:
        return {f"/{SERVICE}/Check": self._check, f"/{SERVICE}/List": self._list, f"/{SERVICE}/Watch": self._watch}

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status(self, service: str) -> "HealthCheckResponse.ServingStatus":
        serving = self._serving.get(service)
        return _UNKNOWN if serving is None else _SERVING if serving else _NOT_SERVING

    async def _check(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for request in requests:
            service = HealthCheckRequest.FromString(request).service
            status = self._status(service)
            if status == _UNKNOWN:
                raise RpcError(StatusCode.NOT_FOUND, f"no health of a service {service!r} is known")
            yield HealthCheckResponse(status=status).SerializeToString()
            return

    async def _list(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for request in requests:
            HealthListRequest.FromString(request)
            statuses = {service: HealthCheckResponse(status=self._status(service)) for service in self._serving}
            yield HealthListResponse(statuses=statuses).SerializeToString()
            return

    async def _watch(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The status, and every later one that differs; a service may become known later."""
        async for request in requests:
            service, told = HealthCheckRequest.FromString(request).service, None
            while True:
                changed = self._changed
                status = self._status(service)
                if status != told:
                    told = status
                    yield HealthCheckResponse(status=status).SerializeToString()
                    # Something may have changed while that was sent.
                    continue
                if self._draining:
                    raise RpcError(StatusCode.UNAVAILABLE, "the server is about to end")
                await changed.wait()
