"""A real browser, and the whole loop behind the page that it shows."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Request, async_playwright

from headroom.processes.supervisor import Supervisor
from lab.loop.live_figures import LiveFigures
from lab.loop.stack import StackConfig, parts, unused_ports
from tests.epp.process import PickerProcess, picker_process

MANY = 1_000


@dataclass(frozen=True)
class Watched:
    """A page, with what its script complained of and what it asked other hosts for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def watch(self, origin: str) -> None:
        def asked(request: Request) -> None:
            if not request.url.startswith((origin, "data:")):
                self.elsewhere.append(request.url)

        self.page.on("request", asked)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    async with async_playwright() as playwright:
        # Chromium's own sandbox needs a user other than root.
        started = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"] * (os.getuid() == 0))
        yield started
        await started.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def loop(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StackConfig]:
    """Envoy, picker, trainer, predictors and simulated servers, started as the demo starts them."""
    folder = tmp_path_factory.mktemp("loop")
    file = folder / "comparison.json"
    LiveFigures(file, ("round-robin", "default", "slo"))
    config = StackConfig(
        folder=folder,
        hardware=["fast", "fast", "slow"],
        ports=unused_ports(3),
        speed_factor=10.0,
        quantiles=(0.9, 0.5),
        picker_flags=("--live-page", "true", "--live-comparison-file", file),
    )
    supervisor = Supervisor(config.folder, lambda name: None)
    try:
        await supervisor.start(parts(config), lambda name: None)
        yield config
    finally:
        await supervisor.stop()


@pytest.fixture(scope="session")
def large_pool(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PickerProcess]:
    """A picker with many endpoints, whose servers are away."""
    endpoints = ",".join(f"server-{n:04d}=127.0.1.{n % 250 + 1}:{n + 1}" for n in range(MANY))
    with picker_process(tmp_path_factory.mktemp("picker"), "--live-page", endpoints=endpoints) as found:
        yield found


@pytest.fixture(scope="session")
def screenshots() -> Path | None:
    """The folder for the documentation's pictures, if they are wanted."""
    named = os.environ.get("HEADROOM_SCREENSHOTS")
    return Path(named) if named else None
