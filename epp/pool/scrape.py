"""Scraping the endpoints' metrics pages, each on a loop of its own so that one that hangs delays no other."""

import asyncio
import logging
import random
from dataclasses import dataclass

import aiohttp

from epp.pool.metrics_page import Gauge
from epp.pool.pool import Pool

logger = logging.getLogger("headroom.epp.scrape")

_MAX_PAGE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class ScrapeConfig:
    """Which gauges to read, where, and how often. `port` 0 is the endpoint's own."""

    waiting: Gauge | None
    running: Gauge | None
    kv_usage: Gauge | None
    interval_s: float = 0.05
    timeout_s: float = 5.0
    scheme: str = "http"
    port: int = 0
    path: str = "/metrics"
    verify_tls: bool = False


class Scraper:
    """Follows the pool: starts a loop for each endpoint that appears and ends it when the endpoint goes."""

    def __init__(self, pool: Pool, config: ScrapeConfig) -> None:
        self._pool = pool
        self._config = config
        self._loops: dict[tuple[int, str], asyncio.Task[None]] = {}
        self.scrapes = 0
        self.failures = 0

    async def run(self) -> None:
        """Runs until cancelled."""
        timeout = aiohttp.ClientTimeout(total=self._config.timeout_s)
        connector = aiohttp.TCPConnector(limit=0, ssl=self._config.verify_tls)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            try:
                while True:
                    self._follow(session)
                    await asyncio.sleep(self._config.interval_s)
            finally:
                for loop in self._loops.values():
                    loop.cancel()

    def _follow(self, session: aiohttp.ClientSession) -> None:
        present = {(slot, endpoint.address) for slot, endpoint in self._pool.endpoints.items()}
        for key in self._loops.keys() - present:
            self._loops.pop(key).cancel()
        for key in present - self._loops.keys():
            self._loops[key] = asyncio.create_task(self._loop(session, *key))

    async def _loop(self, session: aiohttp.ClientSession, slot: int, address: str) -> None:
        host, _, own_port = address.rpartition(":")
        url = f"{self._config.scheme}://{host}:{self._config.port or own_port}{self._config.path}"
        failing = False
        while True:
            try:
                await self._scrape(session, slot, url)
                if failing:
                    logger.info("scraping %s works again", url)
                failing = False
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                self.failures += 1
                if not failing:
                    logger.warning("can't scrape %s: %s", url, error or type(error).__name__)
                failing = True
            # Spread evenly over time, or a hundred endpoints would all be asked in the same instant.
            await asyncio.sleep(self._config.interval_s * random.uniform(0.9, 1.1))

    async def _scrape(self, session: aiohttp.ClientSession, slot: int, url: str) -> None:
        async with session.get(url) as response:
            response.raise_for_status()
            page = await _read_page(response)
        self.scrapes += 1
        values = [
            gauge.read(page) if gauge else 0.0
            for gauge in (self._config.waiting, self._config.running, self._config.kv_usage)
        ]
        waiting, running, kv_usage = values
        if waiting is None or running is None or kv_usage is None:
            raise ValueError("the page lacks a wanted metric; name the server's own by the --*-metric flags")
        self._pool.record_metrics(slot, waiting, running, kv_usage)


async def _read_page(response: aiohttp.ClientResponse) -> bytes:
    """The whole page; ValueError when it is larger than any metrics page should be."""
    page = bytearray()
    async for piece in response.content.iter_any():
        page += piece
        if len(page) > _MAX_PAGE_BYTES:
            raise ValueError(f"the page is larger than {_MAX_PAGE_BYTES} bytes")
    return bytes(page)
