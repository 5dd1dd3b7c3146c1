import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from epp.exceptions import ConfigError
from epp.pool.metrics_page import Gauge
from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from epp.pool.scrape import ScrapeConfig, Scraper
from epp.pool.sources import parse_endpoints, read_endpoints, watch_endpoints
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Endpoint, Snapshot

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PAGE = "waiting 3\nrunning 5\nkv 0.25\n"


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """ip:port of a server whose /metrics is answered by `handler`."""
    app = web.Application()
    app.router.add_get("/metrics", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def scraping(*addresses: str) -> AsyncIterator[tuple[Pool, Scraper]]:
    pool = Pool(PrefixIndex(10), staleness_s=60.0)
    pool.replace_endpoints(Endpoint(address, address) for address in addresses)
    waiting, running, kv_usage = (Gauge.parse(name) for name in ("waiting", "running", "kv"))
    scraper = Scraper(pool, ScrapeConfig(waiting, running, kv_usage, interval_s=0.01, timeout_s=30))
    task = asyncio.create_task(scraper.run())
    try:
        yield pool, scraper
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def snapshot(pool: Pool) -> Snapshot:
    return pool.snapshot(Request("1", "m"))


async def page(request: web.Request) -> web.Response:
    return web.Response(text=PAGE)


async def large_page_in_pieces(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(50):
        await response.write(b'other{le="1"} 1\n' * 200)
        await asyncio.sleep(0)
    await response.write(PAGE.encode())
    return response


@pytest.mark.parametrize("handler", [page, large_page_in_pieces])
async def test_the_pool_learns_what_the_page_says(handler: Handler) -> None:
    async with serving(handler) as address, scraping(address) as (pool, scraper):
        await until(lambda: scraper.scrapes > 2)
        found = snapshot(pool)
        assert (found.waiting[0], found.running[0], found.kv_usage[0]) == (3, 5, 0.25)
        assert not found.stale[0]
        assert scraper.failures == 0


async def test_an_endpoint_that_hangs_delays_no_other_and_is_no_candidate() -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with serving(hang) as bad, serving(page) as good, scraping(bad, good) as (pool, scraper):
        await until(lambda: scraper.scrapes > 5)
        assert [endpoint.name for endpoint in snapshot(pool).endpoints] == [good]


@pytest.mark.parametrize("body", ["waiting 1\n", "", "waiting x\nrunning 1\nkv 0\n"])
async def test_a_page_without_the_wanted_metrics_is_not_believed(body: str) -> None:
    async def incomplete(request: web.Request) -> web.Response:
        return web.Response(text=body)

    async with serving(incomplete) as address, scraping(address) as (pool, scraper):
        await until(lambda: scraper.failures > 1)
        assert snapshot(pool).stale[0]


async def test_endpoints_that_come_and_go_are_followed() -> None:
    async with serving(page) as first, serving(page) as second, scraping(first) as (pool, _):
        await until(lambda: not snapshot(pool).stale[0])
        pool.replace_endpoints([Endpoint("second", second)])
        await until(lambda: not snapshot(pool).stale[0])
        assert [endpoint.name for endpoint in snapshot(pool).endpoints] == ["second"]


async def test_a_watched_file_changes_the_pool_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    file, pool = tmp_path / "endpoints.yaml", Pool(PrefixIndex(10), 60.0)
    file.write_text("endpoints: [{name: a, address: 10.0.0.1, port: 8000, labels: {role: decode}}]")
    task = asyncio.create_task(watch_endpoints(file, pool, interval_s=0.01))
    await until(lambda: len(pool) == 1)
    assert snapshot(pool).endpoints == (Endpoint("a", "10.0.0.1:8000", {"role": "decode"}),)
    file.write_text("endpoints: [{name: a}]")
    await asyncio.sleep(0.05)
    assert len(pool) == 1
    file.write_text("endpoints: [{address: 10.0.0.1, port: 8000}, {address: 10.0.0.2, port: 8000}]")
    await until(lambda: len(pool) == 2)
    task.cancel()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("endpoints: 3", "array"),
        ("endpoints: [{address: a}]", "port"),
        ("a: [", "endpoints.yaml"),
        ("x: 1", "endpoints"),
    ],
)
def test_a_wrong_file_is_told_by_its_field(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "endpoints.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        read_endpoints(file)


def test_endpoints_on_the_command_line_may_have_names() -> None:
    endpoints = parse_endpoints("a=10.0.0.1:8000, 10.0.0.2:8000")
    assert [(e.name, e.address) for e in endpoints] == [("a", "10.0.0.1:8000"), ("10.0.0.2:8000", "10.0.0.2:8000")]
