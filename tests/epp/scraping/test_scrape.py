"""Test the scraper with real servers: pages, failures, intervals, and changes of the pool."""

import asyncio
import logging
import os
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from epp.exceptions import ConfigError
from epp.extproc.tls import self_signed
from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Endpoint, Snapshot
from epp.scraping.engines import configured_engine
from epp.scraping.page_access import PageAccess
from epp.scraping.scrape import ScrapeConfig, Scraper
from epp.scraping.target import ScrapeTimeouts
from tests.epp.scraping.pages import PAGE, Answer, always, http, once, page, page_servers, serving, vllm_page
from tests.live import PATIENCE_S

ENGINE = configured_engine("vllm", waiting="waiting", running="running", kv_usage="kv", lora="")
CHUNKED = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{len(PAGE):x}\r\n{PAGE}\r\n0\r\n\r\n".encode()
QUICK = ScrapeTimeouts(connect_s=0.2, page_s=0.2, backoff_s=0.05)
PATIENT = ScrapeTimeouts(connect_s=60, page_s=60, backoff_s=0.05)


def build_pool(*addresses: str) -> Pool:
    pool = Pool(PrefixIndex(10), staleness_s=60.0)
    pool.replace_endpoints(Endpoint(address, address) for address in addresses)
    return pool


@asynccontextmanager
async def running(pool: Pool, **settings: Any) -> AsyncIterator[Scraper]:
    defaults: dict[str, Any] = {"engine": ENGINE, "interval_s": 0.01, "timeouts": PATIENT, "staleness_s": 60.0}
    scraper = Scraper(pool, ScrapeConfig(**(defaults | settings)))
    task = asyncio.create_task(scraper.run())
    try:
        yield scraper
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def snapshot(pool: Pool) -> Snapshot:
    return pool.snapshot(Request("1", "m"))


def fresh(pool: Pool) -> set[str]:
    found = snapshot(pool)
    return {endpoint.address for endpoint, stale in zip(found.endpoints, found.stale, strict=True) if not stale}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="headroom.epp.scrape"):
        yield caplog


def counted(asked: Counter[str], name: str) -> Answer:
    """Return a handler that answers every request with the page and counts the requests in `asked[name]`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            asked[name] += 1
            writer.write(http(PAGE.encode()))

    return serve


# Pages


async def forgetful(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the first request. Close the connection when the second one arrives."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(http(PAGE.encode()))
    await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        page,
        always(CHUNKED),
        always(http(b'other{le="1"} 1\n' * 100_000 + PAGE.encode())),
        once(http(PAGE.encode(), "HTTP/1.1 200 OK\r\nConnection: close")),
        once(http(PAGE.encode(), "HTTP/1.0 200 OK")),
        once(b"HTTP/1.0 200 OK\r\n\r\n" + PAGE.encode()),
        once(http(PAGE.encode())),
        forgetful,
    ],
    ids=["length", "chunks", "large", "close", "1.0", "no-length", "closed", "closed-when-asked"],
)
async def test_the_pool_gets_the_load_from_the_page(answer: Answer) -> None:
    async with serving(answer) as address:
        pool = build_pool(address)
        async with running(pool) as scraper:
            await until(lambda: scraper.counts.pages > 3)
            found = snapshot(pool)
            assert (found.waiting[0], found.running[0], found.kv_usage[0]) == (3, 5, 0.25)
            assert not found.stale[0]
            assert scraper.counts.failed == 0


async def test_a_pool_may_mix_engines() -> None:
    sglang = b'sglang:num_queue_reqs{tp_rank="0"} 7.0\nsglang:num_running_reqs 1\nsglang:token_usage 0.5\n'
    async with serving(always(http(vllm_page(4)))) as first, serving(always(http(sglang))) as second:
        pool = build_pool(first)
        pool.replace_endpoints([Endpoint("v", first), Endpoint("s", second, {"llm-d.ai/engine-type": "sglang"})])
        async with running(pool, engine=configured_engine("vllm")):
            await until(lambda: len(fresh(pool)) == 2)
            assert list(snapshot(pool).waiting) == [4, 7]


async def test_adapters_reach_the_pool() -> None:
    lora = b'vllm:lora_requests_info{max_lora="4",running_lora_adapters="a",waiting_lora_adapters="b"} 1.7e9\n'
    async with serving(always(http(vllm_page() + lora))) as address:
        pool = build_pool(address)
        async with running(pool, engine=configured_engine("vllm")):
            await until(lambda: bool(fresh(pool)))
            assert snapshot(pool).adapters[0].active == {"a"}


async def test_the_size_of_the_cache_reaches_the_pool() -> None:
    cache = (
        b'vllm:cache_config_info{block_size="128",num_gpu_blocks="256"} 1\n'
        b"vllm:prefix_cache_queries_total 400\nvllm:prefix_cache_hits_total 100\n"
    )
    async with serving(always(http(vllm_page() + cache))) as told, serving(always(http(vllm_page()))) as untold:
        pool = build_pool(told, untold)
        pool.prefix_index.resize(10, tokens_per_block=16.0)
        async with running(pool, engine=configured_engine("vllm")) as scraper:
            await until(lambda: len(fresh(pool)) == 2)
            assert pool.cache_of(0) == (128 * 256, 128)
            assert [pool.prefix_index.capacity(slot) for slot in range(2)] == [128 * 256 / 16, 10]
            assert scraper.hit_ratios == {told: 0.25}


async def test_the_page_may_have_its_own_port_and_path() -> None:
    async with serving(page) as address:
        port = int(address.rpartition(":")[2])
        pool = build_pool("127.0.0.1:1")
        async with running(pool, port=port, path="/any/where?x=%20y"):
            await until(lambda: bool(fresh(pool)))
        pool = build_pool()
        pool.replace_endpoints([Endpoint("a", "127.0.0.1:1", {}, address)])
        async with running(pool, port=2):
            await until(lambda: bool(fresh(pool)))


async def test_the_address_may_be_ipv6() -> None:
    try:
        async with serving(page, "::1") as address:
            pool = build_pool(address)
            async with running(pool):
                await until(lambda: fresh(pool) == {address})
    except OSError:
        pytest.skip("this machine has no IPv6")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(b"".join(self_signed()))
    return path


async def test_https_pages_are_read_and_verified_only_if_configured(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with serving(page, ssl=context) as address:
        pool = build_pool(address)
        async with running(pool, access=PageAccess("https")) as scraper:
            await until(lambda: scraper.counts.pages > 3)
            assert scraper.counts.connections == 1
        pool = build_pool(address)
        async with running(pool, access=PageAccess("https", verify_tls=True)) as scraper:
            await until(lambda: scraper.counts.failures["connect"] > 1)
            assert not fresh(pool)


@pytest.mark.parametrize("path", ["metrics", "", "/a b", "/a\r\nX: y", "/ä"])
def test_an_invalid_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="--model-server-metrics-path"):
        Scraper(build_pool(), ScrapeConfig(path=path))


def test_an_interval_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="--refresh-metrics-interval"):
        Scraper(build_pool(), ScrapeConfig(interval_s=0))


# Failures


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (always(http(b"", "HTTP/1.1 302 Found\r\nLocation: /")), "status"),
        (always(http(PAGE.encode(), "HTTP/1.1 500 Internal Server Error")), "status"),
        (always(b"220 smtp ready\r\n"), "page"),
        (always(http(b"nothing 1\n")), "page"),
        (always(http(b"waiting x\nrunning NaN\nkv -1\n")), "page"),
        (once(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nwaiting 1\n"), "page"),
        (once(b""), "connect"),
        (always(b""), "timeout"),
        (always(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + PAGE.encode()), "timeout"),
    ],
    ids=["redirect", "500", "garbage", "none", "bad-numbers", "cut", "closed", "hangs", "hangs-within"],
)
async def test_a_bad_answer_is_ignored_and_counted_by_its_kind(answer: Answer, kind: str) -> None:
    async with serving(answer) as address:
        pool = build_pool(address)
        async with running(pool, timeouts=QUICK if kind == "timeout" else PATIENT) as scraper:
            await until(lambda: scraper.counts.failed > 1)
            assert scraper.counts.failed == scraper.counts.failures[kind]
            assert not fresh(pool)


async def test_a_refused_connection_is_counted(unused_tcp_port: int) -> None:
    pool = build_pool(f"127.0.0.1:{unused_tcp_port}")
    async with running(pool, timeouts=QUICK) as scraper:
        await until(lambda: scraper.counts.failures["connect"] > 1)
        assert not fresh(pool)


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"w")
        await asyncio.sleep(0.05)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"other 1\n" * 8000)
        await writer.drain()


async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(os.urandom(1000))


async def test_endpoints_that_fail_in_every_way_delay_no_others() -> None:
    asked: Counter[str] = Counter()

    bad = [hang, drip, endless, garble, always(http(b"", "HTTP/1.1 500 Oh")), once(b""), hang, drip, always(b"HTTP")]
    async with AsyncExitStack() as servers, full_backlog() as deaf:
        failing = [deaf, *[await servers.enter_async_context(serving(answer)) for answer in bad]]
        good = [await servers.enter_async_context(serving(counted(asked, str(number)))) for number in range(90)]
        addresses = [one for tens in range(10) for one in (failing[tens], *good[tens * 9 : tens * 9 + 9])]
        pool = build_pool(*addresses)
        async with running(pool, interval_s=0.05):
            # Hanging endpoints do not time out during this test, so waiting for one of them would never end.
            await until(lambda: len(asked) == 90 and min(asked.values()) >= 10)
            assert fresh(pool) == set(good)


@asynccontextmanager
async def full_backlog() -> AsyncIterator[str]:
    """Yield an address that accepts no connection: connections to it stay half open."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        listener.setblocking(False)
        address = listener.getsockname()
        with socket.socket() as first, socket.socket() as second:
            for one in (first, second):
                one.setblocking(False)
                with suppress(BlockingIOError):
                    one.connect(address)
            yield f"127.0.0.1:{address[1]}"


async def test_a_connection_that_is_not_accepted_times_out() -> None:
    async with full_backlog() as deaf, running(build_pool(deaf), timeouts=QUICK) as scraper:
        await until(lambda: scraper.counts.failures["connect"] > 1)


async def test_an_endpoint_that_returns_is_read_again_and_its_age_logged_once(
    log: pytest.LogCaptureFixture, unused_tcp_port: int
) -> None:
    pool = build_pool(f"127.0.0.1:{unused_tcp_port}")
    async with running(pool, timeouts=QUICK, staleness_s=0.1) as scraper:
        await until(lambda: scraper.counts.failed > 5 and scraper.stale == 1)
        assert scraper.max_age_s > 0.1
        async with serving(page, port=unused_tcp_port):
            await until(lambda: bool(fresh(pool)) and scraper.stale == 0)
        # The server is gone again.
        await until(lambda: scraper.stale == 1)
    texts = [record.getMessage() for record in log.records]
    first_words = [text.split(" ")[0] for text in texts]
    assert first_words == ["no", "metrics"] * (len(first_words) // 2) + ["no"]
    assert "can't connect" in texts[0]


async def test_a_missing_metric_is_logged_once_with_the_flag_to_set(log: pytest.LogCaptureFixture) -> None:
    async with (
        serving(always(http(b"waiting 3\nrunning 4\n"))) as a,
        serving(always(http(b"waiting 2\nkv NaN\n"))) as b,
    ):
        pool = build_pool(a, b)
        async with running(pool) as scraper:
            await until(lambda: scraper.counts.pages > 10 and len(fresh(pool)) == 2)
            assert (list(snapshot(pool).waiting), list(snapshot(pool).running)) == ([3, 2], [4, 0])
            assert scraper.counts.rejected_values > 1
    texts = sorted(record.getMessage() for record in log.records)
    assert len(texts) == 3
    assert any(a in text and "no kv:" in text and "--kv-cache-usage-percentage-metric" in text for text in texts)
    assert any(b in text and "no running:" in text and "--total-running-requests-metric" in text for text in texts)
    assert any(b in text and "a kv that can't be is ignored" in text for text in texts)


async def test_an_unknown_engine_label_is_logged_and_the_page_decides(log: pytest.LogCaptureFixture) -> None:
    async with serving(page) as address:
        pool = build_pool()
        pool.replace_endpoints([Endpoint("a", address, {"llm-d.ai/engine-type": "mine"})])
        async with running(pool):
            await until(lambda: bool(fresh(pool)))
    assert "'mine', which is none of vllm, sglang" in log.records[0].getMessage()


# Intervals


async def test_scraping_rests_without_decisions_and_resumes_at_the_first_one() -> None:
    asked: Counter[str] = Counter()

    async with serving(counted(asked, "a")) as a, serving(counted(asked, "b")) as b:
        pool = build_pool(a, b)
        async with running(pool, linger_s=0.5, idle_interval_s=1000.0, staleness_s=4000.0) as scraper:
            await until(lambda: len(fresh(pool)) == 2)
            await until(lambda: scraper.resting)
            before = asked.copy()
            scraper.note_demand()
            for _ in range(3):
                await asyncio.sleep(0)
            assert not scraper.resting

            def asked_again() -> bool:
                scraper.note_demand()
                return all(asked[name] > before[name] for name in ("a", "b"))

            await until(asked_again)
            await until(lambda: scraper.resting)


def build_loaded_pool(*addresses: str) -> Pool:
    """Return a pool whose first endpoint has as many requests of the picker's own as its page tells of."""
    pool = build_pool(*addresses)
    for number in range(8):
        pool.dispatch(0, Request(str(number), "m"), 0.0)
    return pool


async def test_an_endpoint_is_asked_seldom_while_the_pickers_own_requests_explain_its_load() -> None:
    asked: Counter[str] = Counter()

    async with serving(counted(asked, "own")) as own, serving(counted(asked, "shared")) as shared:
        pool = build_loaded_pool(own, shared)
        async with running(pool, most_interval_s=5.0, linger_s=60.0) as scraper:
            await until(lambda: asked["shared"] >= 60)
            # After 10, 20, 40, 80, 160 and 320 ms. On a slow machine both are asked less often.
            assert asked["own"] < asked["shared"] / 4
            assert scraper.intervals_s[shared] == 0.01
            assert scraper.intervals_s[own] > 0.1


async def test_the_longest_interval_leaves_time_to_find_a_dead_endpoint() -> None:
    async with serving(page) as address:
        pool = build_loaded_pool(address)
        async with running(pool, most_interval_s=60.0, linger_s=60.0, staleness_s=0.4) as scraper:
            await until(lambda: scraper.intervals_s.get(address) == 0.1)


async def test_an_endpoint_that_fails_is_asked_often() -> None:
    async def fail_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(http(PAGE.encode()))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http(b"", "HTTP/1.1 500 Oh"))

    async with serving(fail_later) as address:
        pool = build_loaded_pool(address)
        async with running(pool, most_interval_s=60.0, linger_s=60.0) as scraper:
            await until(lambda: scraper.counts.pages == 3)
            assert scraper.intervals_s[address] == 0.08
            await until(lambda: scraper.counts.failed == 1)
            assert scraper.intervals_s[address] == 0.01


async def test_a_new_endpoint_is_scraped_at_once_even_while_resting() -> None:
    async with serving(page) as first, serving(page) as second:
        pool = build_pool(first)
        async with running(pool, linger_s=0.5, idle_interval_s=1000.0, staleness_s=4000.0) as scraper:
            await until(lambda: scraper.resting)
            pool.replace_endpoints([Endpoint(first, first), Endpoint(second, second)])
            await until(lambda: fresh(pool) == {first, second})


async def test_a_rate_too_low_for_the_endpoints_is_logged(log: pytest.LogCaptureFixture) -> None:
    async with running(build_pool("127.0.0.1:1", "127.0.0.1:2"), max_pages_per_s=1.0, staleness_s=1.0):
        await until(lambda: bool(log.records))
    assert "2 endpoints at 1 pages a second" in log.records[0].getMessage()


# Changes of the pool


async def test_scraping_follows_the_pools_endpoints() -> None:
    async with serving(page) as first, serving(page) as second:
        pool = build_pool(first)
        async with running(pool):
            await until(lambda: bool(fresh(pool)))
            pool.replace_endpoints([Endpoint("second", second)])
            await until(lambda: fresh(pool) == {second})


async def test_a_changed_engine_label_takes_effect() -> None:
    sglang = b"sglang:num_queue_reqs 7.0\n"
    async with serving(always(http(sglang + PAGE.encode()))) as address:
        pool = build_pool(address)
        async with running(pool):
            await until(lambda: bool(fresh(pool)) and snapshot(pool).waiting[0] == 3)
            pool.replace_endpoints([Endpoint(address, address, {"llm-d.ai/engine-type": "sglang"})])
            await until(lambda: snapshot(pool).waiting[0] == 7)


def open_sockets() -> int:
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


async def test_churn_leaves_no_sockets_and_no_tasks() -> None:
    before, tasks = open_sockets(), len(asyncio.all_tasks())
    async with AsyncExitStack() as servers:
        answers = [page, hang, endless, once(b""), garble, page]
        addresses = [await servers.enter_async_context(serving(answer)) for answer in answers]
        async with full_backlog() as deaf:
            pool = build_pool()
            async with running(pool, interval_s=0.005) as scraper:
                for turn in range(30):
                    some = [*addresses, deaf][turn % 3 :: 2]
                    pool.replace_endpoints(Endpoint(address, address) for address in some)
                    seen = scraper.counts.connections
                    await until(lambda seen=seen: scraper.counts.connections > seen)  # type: ignore[misc]
                pool.replace_endpoints([])
                servers_only = len(answers) + 3
                await until(lambda: open_sockets() <= before + servers_only)
    await until(lambda: open_sockets() <= before and len(asyncio.all_tasks()) <= tasks)


async def test_a_late_page_does_not_count_for_the_slots_next_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epp.pool.pool._REST_S", 0.0)
    release = asyncio.Event()
    asked = asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await release.wait()
        writer.write(http(PAGE.encode()))
        await writer.drain()

    async with serving(late) as gone, serving(hang) as successor:
        pool = build_pool(gone)
        async with running(pool) as scraper:
            await asked.wait()
            pool.replace_endpoints([Endpoint(successor, successor)])
            release.set()
            assert list(pool.endpoints) == [0]
            await until(lambda: scraper.counts.connections == 2)
            assert not fresh(pool)


@pytest.mark.slow
async def test_a_thousand_endpoints_stay_fresh() -> None:
    with page_servers(1000, vllm_page()) as addresses:
        pool = build_pool(*addresses)
        async with running(pool, engine=configured_engine("vllm"), interval_s=0.05) as scraper:
            await until(lambda: len(fresh(pool)) == 1000)
            await until(lambda: scraper.counts.pages > 5000)
            assert scraper.counts.failed == 0
            assert scraper.counts.connections == 1000


async def test_too_many_adapters_are_counted_and_told_once(log: pytest.LogCaptureFixture) -> None:
    labels = (
        'vllm:lora_requests_info{running_lora_adapters="' + ",".join(f"a{index}" for index in range(3_000)) + '"} 1\n'
    )
    async with serving(always(http(vllm_page() + labels.encode()))) as address:
        pool = build_pool(address)
        async with running(pool, engine=configured_engine("vllm")) as scraper:
            await until(lambda: scraper.counts.pages > 5 and len(fresh(pool)) == 1)
            assert scraper.counts.rejected_values >= scraper.counts.pages - 1
    (adapters,) = snapshot(pool).adapters
    assert len(adapters.active) == 1000
    assert [record.getMessage() for record in log.records if "adapters" in record.getMessage()] == [
        f"http://{address}/metrics lists more LoRA adapters than are read: 1000"
    ]
