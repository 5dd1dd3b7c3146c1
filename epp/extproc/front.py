"""The picker's gRPC ports: ext_proc, served by http2 or grpcio, and health on a port of its own."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from epp.extproc import grpc_front
from epp.extproc.health import LIVENESS, READINESS, Health
from epp.extproc.health import SERVICE as HEALTH_SERVICE
from epp.extproc.http2 import front as http2_front
from epp.extproc.reflection import reflection_methods
from epp.extproc.rpc import RpcClient, Services, StreamHandler
from epp.extproc.tls import Certificates
from serving.listening import Address

SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"
PATH: Final = f"/{SERVICE}/Process"
# Names that probes and gateways ask for. "" is the whole process; the chart's probes name the last two.
HEALTH_SERVICES: Final = ("", "inference-extension", SERVICE, LIVENESS, READINESS)


@dataclass(frozen=True, kw_only=True)
class FrontSettings:
    """The settings of the gRPC ports. `front` is this package's own HTTP/2, or grpcio.

    Without `certificates`, ext_proc is served in cleartext. The health port always is. Port 0 picks a free port.
    `health_port=None` disables the health port. `health_checking` serves health and reflection on the ext_proc port
    too. `reuse_port` lets several processes share the ports.
    """

    host: str
    port: int
    health_port: int | None
    certificates: Certificates | None
    health_checking: bool
    front: Literal["http2", "grpcio"] = "http2"
    max_message_bytes: int = 64 << 20
    max_buffered_bytes: int = 512 << 20
    max_connections: int = 1_000
    reuse_port: bool = False


class Server(Protocol):
    """A server of gRPC services on one port."""

    port: int

    async def stop(self, grace_s: float) -> None: ...


class Front:
    """The ports while they are served."""

    def __init__(self, extproc: Server, checks: Server | None, certificates: Certificates | None) -> None:
        self._extproc = extproc
        self._checks = checks
        self._watching = asyncio.create_task(certificates.watch()) if certificates else None
        self.port = extproc.port
        self.health_port = checks.port if checks else None

    async def stop(self, grace_s: float) -> None:
        """Refuse new streams, let open ones end within `grace_s` seconds, then stop the health port."""
        await self._extproc.stop(grace_s)
        if self._checks:
            await self._checks.stop(0)
        if self._watching:
            self._watching.cancel()


async def start(
    settings: FrontSettings,
    new_exchange: Callable[[RpcClient], StreamHandler],
    health: Health,
    count_flood: Callable[[str], None] = lambda kind: None,
) -> Front:
    """Start serving. Raise StartError when a port is taken.

    The http2 front calls `count_flood` with the kind of a flood for which it closes a connection.
    """
    methods = {**health.methods, **reflection_methods([SERVICE, HEALTH_SERVICE])}
    extproc = Services(
        exchanges={PATH: new_exchange},
        methods=methods if settings.health_checking else {},
        max_message_bytes=settings.max_message_bytes,
        max_buffered_bytes=settings.max_buffered_bytes,
        max_connections=settings.max_connections,
        count_flood=count_flood,
    )
    listen = http2_front.listen if settings.front == "http2" else grpc_front.listen
    address = Address(settings.host, settings.port, settings.reuse_port)
    server: Server = await listen(address, extproc, settings.certificates)
    if settings.health_port is None:
        return Front(server, None, settings.certificates)
    methods = {**health.methods, **reflection_methods([HEALTH_SERVICE])}
    checks = Services(methods=methods, count_flood=count_flood)
    try:
        beside = await http2_front.listen(
            Address(settings.host, settings.health_port, settings.reuse_port), checks, None
        )
    except BaseException:
        await server.stop(0)
        raise
    return Front(server, beside, settings.certificates)
