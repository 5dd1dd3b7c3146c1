"""The standard gRPC health service. Probes and gateways ask for the status of a service, or watch it.

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
# The process is alive as long as it answers, even while it drains.
LIVENESS: Final = "liveness"
READINESS: Final = "readiness"

_SERVING: Final = HealthCheckResponse.SERVING
_NOT_SERVING: Final = HealthCheckResponse.NOT_SERVING
_UNKNOWN: Final = HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """The status of each service, by name. At first only `liveness` serves, if `services` contains it."""

    def __init__(self, services: Iterable[str]) -> None:
        self._serving = {service: service == LIVENESS for service in services}
        self._draining = False
        # Every change sets this event and replaces it with a new one.
        self._changed = asyncio.Event()

    def set(self, service: str, serving: bool) -> None:
        """Set whether a service serves. Has no effect once the process drains."""
        if not self._draining and self._serving.get(service) != serving:
            self._serving[service] = serving
            self._tell()

    def set_all(self, serving: bool) -> None:
        """Set whether all services but `liveness` serve."""
        for service in self._serving.keys() - {LIVENESS}:
            self.set(service, serving)

    def drain(self) -> None:
        """Set all services but `liveness` to not serving for good, tell the watchers, and end their watches."""
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
                raise RpcError(StatusCode.NOT_FOUND, f"the service {service!r} is unknown")
            yield HealthCheckResponse(status=status).SerializeToString()
            return

    async def _list(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for request in requests:
            HealthListRequest.FromString(request)
            statuses = {service: HealthCheckResponse(status=self._status(service)) for service in self._serving}
            yield HealthListResponse(statuses=statuses).SerializeToString()
            return

    async def _watch(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield the status, and each later status that differs. The service may still be unknown."""
        async for request in requests:
            service, sent = HealthCheckRequest.FromString(request).service, None
            while True:
                changed = self._changed
                status = self._status(service)
                if status != sent:
                    sent = status
                    yield HealthCheckResponse(status=status).SerializeToString()
                    # The status may have changed while the answer was sent.
                    continue
                if self._draining:
                    raise RpcError(StatusCode.UNAVAILABLE, "the server is shutting down")
                await changed.wait()
