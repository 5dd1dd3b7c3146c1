"""Run a real Envoy and a real picker as processes, and model servers in the test's process.

Each model server has its own address, because a gateway's subset names addresses without ports.
"""

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from headroom.gateway import envoy
from headroom.processes.ports import free_ports
from headroom.processes.supervisor import Part, Supervisor
from tests.envoy.backends import Backend
from tests.envoy.clients import Http2Connection, http2
from tests.live import PATIENCE_S

ROOT = Path(__file__).parents[2]
Edit = Callable[[dict[str, Any]], None]


@dataclass
class Rig:
    """The running processes and backends. The endpoints file tells the picker which backends exist."""

    folder: Path
    full_duplex: bool
    envoy_port: int
    admin_port: int
    metrics_port: int
    backends: list[Backend]
    picker_part: Part
    picker: Supervisor = field(init=False)
    h2: Http2Connection = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.envoy_port}"

    @property
    def received(self) -> int:
        return sum(len(backend.received) for backend in self.backends)

    async def start_picker(self) -> None:
        self.picker = Supervisor(self.folder, lambda name: None)
        await self.picker.start([self.picker_part], lambda name: None)

    def signal_picker(self, number: signal.Signals) -> None:
        self.picker.kill("epp", number)

    def set_endpoints(self, backends: Sequence[Backend]) -> None:
        """Rewrite the endpoints file atomically."""
        listed = [{"name": backend.name, "address": backend.host, "port": backend.port} for backend in backends]
        draft = self.folder / "endpoints.draft"
        draft.write_text(json.dumps({"endpoints": listed}))
        draft.rename(self.folder / "endpoints.yaml")

    async def endpoints(self) -> Any:
        return await get_json(f"http://127.0.0.1:{self.metrics_port}/debug/endpoints")

    async def decisions(self, limit: int = 100) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{self.metrics_port}/debug/decisions?candidates=false&limit={limit}"
        decisions: list[dict[str, Any]] = (await get_json(url))["decisions"]
        return decisions

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the picker's samples with this name and these labels."""
        families = text_string_to_metric_families(await get(f"http://127.0.0.1:{self.metrics_port}/metrics"))
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    async def envoy_stat(self, name: str) -> int:
        text = await get(f"http://127.0.0.1:{self.admin_port}/stats?filter=^{name}$")
        return sum(int(line.rpartition(" ")[2]) for line in text.splitlines())

    async def is_idle(self) -> bool:
        """Return whether the picker counts nothing in flight, in total and for each endpoint."""
        state = await self.endpoints()
        columns = [row[name] for row in state["endpoints"] for name in row if name.endswith("in_flight")]
        return state["in_flight"] == 0 and not any(columns)

    async def is_picker_healthy(self) -> bool:
        return await self.envoy_stat("cluster.picker.membership_healthy") == 1

    async def is_picker_given_up(self) -> bool:
        return not await self.is_picker_healthy()


@asynccontextmanager
async def running(
    folder: Path,
    *,
    backends: int = 3,
    full_duplex: bool = False,
    failure_mode: envoy.FailureMode = "open",
    message_timeout_s: float = 10.0,
    picker_flags: Sequence[object] = (),
    edit: Edit = lambda config: None,
) -> AsyncIterator[Rig]:
    """Run Envoy, a picker and backends. `edit` changes Envoy's configuration before its start.

    The message timeout is longer than Envoy's default, so that a busy machine doesn't look like a failing picker.
    """
    _allow_sockets(10_000)
    envoy_port, admin_port, grpc_port, health_port, metrics_port = free_ports(5)
    servers = [Backend(f"backend-{index}", f"127.0.0.{index + 1}") for index in range(backends)]
    for server in servers:
        await server.start()
    flags = ["--degrade-after", envoy.degrade_after(message_timeout_s), *picker_flags]
    part = _picker(folder, grpc_port, health_port, metrics_port, flags)
    rig = Rig(folder, full_duplex, envoy_port, admin_port, metrics_port, servers, part)
    rig.set_endpoints(servers)
    config = json.loads(
        envoy.bootstrap(
            port=envoy_port,
            admin_port=admin_port,
            picker_port=grpc_port,
            servers=[server.address for server in servers],
            full_duplex=full_duplex,
            failure_mode=failure_mode,
            message_timeout_s=message_timeout_s,
        )
    )
    edit(config)
    gateway = Supervisor(folder, lambda name: None)
    try:
        await rig.start_picker()
        await gateway.start([_envoy(folder, envoy_port, admin_port, config)], lambda name: None)
        await until(rig.is_picker_healthy)
        async with http2(envoy_port) as rig.h2:
            yield rig
    finally:
        await asyncio.gather(gateway.stop(), rig.picker.stop())
        for server in servers:
            await server.stop()


def _picker(folder: Path, grpc_port: int, health_port: int, metrics_port: int, flags: Sequence[object]) -> Part:
    command = [sys.executable, "-m", "epp", "--host", "127.0.0.1", "--grpc-port", grpc_port, "--health-checking"]
    command += ["--grpc-health-port", health_port, "--metrics-port", metrics_port, "--shutdown-delay", "0s"]
    command += ["--drain-timeout", "1s"]
    command += ["--endpoints-file", folder / "endpoints.yaml", "--refresh-metrics-interval", "200ms"]
    command += ["--debug-decisions", 20_000, *flags]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ready = f"http://127.0.0.1:{metrics_port}/metrics"
    return Part("epp", list(map(str, command)), [grpc_port, health_port, metrics_port], ready, env, redundant=True)


def _envoy(folder: Path, port: int, admin_port: int, config: dict[str, Any]) -> Part:
    file = folder / "envoy.json"
    file.write_text(json.dumps(config))
    command = envoy.command(file, "--concurrency", "1")
    return Part("envoy", command, [port, admin_port], f"http://127.0.0.1:{admin_port}/ready", os.environ)


def _allow_sockets(count: int) -> None:
    """Raise the limit of open files of this process and its children, as far as the system allows."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if most == resource.RLIM_INFINITY else min(count, most)
    if allowed < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


async def get(url: str) -> str:
    async with aiohttp.request("GET", url) as response:
        return await response.text()


async def get_json(url: str) -> Any:
    return json.loads(await get(url))


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.02)
