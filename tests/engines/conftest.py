"""Real vLLM servers behind Envoy and the whole loop: all processes of a deployment, for one run of tests."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from headroom.processes.supervisor import Supervisor
from lab.engines.vllm import KINDS, vllm
from lab.loop.stack import StackConfig, parts, unused_ports, write_endpoints
from tests.envoy.rig import get_json, until

# The first test waits for all servers' start.
TIMEOUT_S = 900
# A small cache, so that all servers fit into 24 GB: 256 blocks of 128 tokens.
_CACHE_BYTES = 256 << 20


@dataclass
class Loop:
    """The running loop. `pool` chooses which of the servers are in the picker's pool."""

    config: StackConfig
    supervisor: Supervisor
    kinds: Sequence[str]

    @property
    def url(self) -> str:
        return self.config.gateway_url

    def server(self, kind: str) -> str:
        """Return the URL of a server, to ask it directly."""
        return f"http://{self.config.servers[self.kinds.index(kind)]}"

    async def pool(self, *kinds: str) -> None:
        """Put these servers into the pool. Return when the picker reads their metrics, and no others'."""
        write_endpoints(self.config, [self.kinds.index(kind) for kind in kinds])
        wanted = sorted(f"vllm-{kind}" for kind in kinds)
        await until(lambda: self._has(wanted))

    async def _has(self, wanted: Sequence[str]) -> bool:
        rows = (await self.endpoints())["endpoints"]
        return sorted(row["name"] for row in rows) == wanted and all(row["metrics_age_s"] is not None for row in rows)

    async def endpoints(self) -> dict[str, Any]:
        page: dict[str, Any] = await get_json(f"{self.config.picker_url}/debug/endpoints")
        return page

    async def decision(self, request_id: str) -> dict[str, Any]:
        """Return the picker's decision for a request once it has ended."""
        found: list[dict[str, Any]] = []

        async def has_ended() -> bool:
            url = f"{self.config.picker_url}/debug/decisions?candidates=false&limit=50"
            decisions = (await get_json(url))["decisions"]
            found[:] = [one for one in decisions if one["request_id"] == request_id]
            return bool(found) and found[0]["outcome"]["duration_ms"] is not None

        await until(has_ended)
        return found[0]

    async def is_idle(self) -> bool:
        return int((await self.endpoints())["in_flight"]) == 0


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def loop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Loop]:
    kinds = list(KINDS)
    flags = ["--kv-cache-memory-bytes", str(_CACHE_BYTES)]
    ports = unused_ports(len(kinds))
    engines = [vllm(kind, ports.first_server + index, flags=flags) for index, kind in enumerate(kinds)]
    config = StackConfig(
        folder=tmp_path_factory.mktemp("loop"),
        engines=engines,
        ports=ports,
        # A busy machine's slow picker is no failing picker.
        message_timeout_s=10.0,
        min_samples=40,
    )
    supervisor = Supervisor(config.folder, lambda name: None)
    try:
        await supervisor.start(parts(config), lambda name: None)
        yield Loop(config, supervisor, kinds)
    finally:
        await supervisor.stop()
