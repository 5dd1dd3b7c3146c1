"""Prediction servers as processes. Their store holds models that predict 1000 ms (TTFT) and 50 ms (TPOT)."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from headroom.processes.ports import free_ports
from headroom.processes.supervisor import Part, Supervisor
from model_store import open_store
from tests.envoy.rig import ROOT
from tests.predictor.models import draft


@dataclass
class Predictors:
    folder: Path
    ports: Sequence[int]
    _running: dict[int, Supervisor] = field(default_factory=dict)

    @property
    def flags(self) -> list[object]:
        """The flags with which a picker asks these servers. No trainer receives the picker's rows."""
        urls = ",".join(f"http://127.0.0.1:{port}" for port in self.ports)
        return [
            "--enable-latency-predictor",
            "--prediction-server-url",
            urls,
            "--training-server-url",
            "http://127.0.0.1:1",
        ]

    async def start(self, port: int) -> None:
        self._running[port] = Supervisor(self.folder, lambda name: None)
        await self._running[port].start([self._part(port)], lambda name: None)

    async def restart(self, port: int) -> None:
        """Kill a server that may run still, and start it again once its port is free."""
        await self._running[port].restart([f"predictor-{port}"])

    def signal(self, port: int, number: signal.Signals) -> None:
        self._running[port].kill(f"predictor-{port}", number)

    async def stop(self) -> None:
        for port in self.ports:
            # A stopped process reacts only to SIGKILL.
            with suppress(KeyError, ProcessLookupError):
                self.signal(port, signal.SIGKILL)
        await asyncio.gather(*(supervisor.stop() for supervisor in self._running.values()))

    def _part(self, port: int) -> Part:
        command = [sys.executable, "-m", "predictor", "--host", "127.0.0.1", "--port", str(port), "--grpc-port", "0"]
        command += ["--model-store", str(self.folder / "store"), "--training-server-url", "http://127.0.0.1:1"]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return Part(f"predictor-{port}", command, [port], f"http://127.0.0.1:{port}/readyz", env, redundant=True)


@asynccontextmanager
async def predicting(folder: Path, count: int = 3) -> AsyncIterator[Predictors]:
    store = open_store(str(folder / "store"))
    store.publish([draft("ttft", 0.0, 1000.0), draft("tpot", 0.0, 50.0)])
    predictors = Predictors(folder, free_ports(count))
    try:
        await asyncio.gather(*(predictors.start(port) for port in predictors.ports))
        yield predictors
    finally:
        await predictors.stop()
