"""Probes from the node to the pod's address, as the kubelet makes them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.node.objects import Action, Container, HttpGet, Probe
from tests.node.process import StartError

_MAX_BODY_BYTES = 10 << 10


@dataclass(frozen=True)
class Target:
    """A container to probe. `run` runs a command in it within a time, and returns exit code and output."""

    container: Container
    address: str
    run: Callable[[list[str], float], Awaitable[tuple[int, bytes]]]

    def port(self, port: int | str) -> int:
        """Return the port's number. Raise KeyError for a name that no port has."""
        return port if isinstance(port, int) else {p.name: p.container_port for p in self.container.ports}[port]


async def attempt(action: Action, target: Target, timeout_s: float) -> str:
    """Try the action once. Return the failure's text, or an empty text after success."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _attempt(action, target, timeout_s)
    except TimeoutError:
        return f"probe timed out after {timeout_s:g}s"
    except (OSError, aiohttp.ClientError, StartError) as error:
        return str(error) or type(error).__name__
    except KeyError as error:
        return f"no port of the container is named {error}"


async def _attempt(action: Action, target: Target, timeout_s: float) -> str:
    if action.http_get:
        return await _http(action.http_get, target)
    if action.grpc:
        return await _grpc(f"{target.address}:{action.grpc.port}", action.grpc.service, timeout_s)
    if action.tcp_socket:
        _, writer = await asyncio.open_connection(target.address, target.port(action.tcp_socket.port))
        writer.close()
    elif action.exec:
        code, output = await target.run(action.exec.command, timeout_s)
        return f"{output.decode(errors='replace')[:1000]} (exit code {code})" if code else ""
    return ""


async def _http(get: HttpGet, target: Target) -> str:
    host, port = get.host or target.address, target.port(get.port)
    url = f"{get.scheme.lower()}://{host}:{port}/{get.path.removeprefix('/')}"
    headers = {"User-Agent": "kube-probe/test"} | {header["name"]: header["value"] for header in get.http_headers}
    connector = aiohttp.TCPConnector(ssl=False, force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(url, headers=headers, allow_redirects=False) as response,
    ):
        await response.content.read(_MAX_BODY_BYTES)
        return "" if 200 <= response.status < 400 else f"HTTP probe failed with statuscode: {response.status}"


async def _grpc(address: str, service: str, timeout_s: float) -> str:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return f"service unhealthy: {error.code().name}: {error.details()}"
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    return f"service unhealthy (responded with {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)!r})"


async def verdicts(probe: Probe, target: Target, failed: Callable[[str], Awaitable[None]]) -> AsyncIterator[bool]:
    """Yield whether the container is well, after each attempt that completes or extends a row of equal results.

    A row is complete when it is as long as the probe's threshold. Each failed attempt is reported to `failed`.
    """
    await asyncio.sleep(probe.initial_delay_seconds)
    row, last = 0, None
    while True:
        failure = await attempt(probe, target, probe.timeout_seconds)
        if failure:
            await failed(failure)
        well = not failure
        row, last = row + 1 if well is last else 1, well
        if row >= (probe.success_threshold if well else probe.failure_threshold):
            yield well
        await asyncio.sleep(probe.period_seconds)
