"""Test that the index is as large as each endpoint's own cache, and that it counts in the blocks of that cache."""

import numpy as np
import pytest

from epp.pool.pool import Pool
from epp.pool.prefix_index import CacheSize, PrefixIndex
from epp.scheduling.request import Request
from epp.scheduling.snapshot import NO_ADAPTERS, Endpoint

FALLBACK = 10
TOKENS_PER_BLOCK = 16.0


def pool_of(*caches: CacheSize, tokens_per_block: float = TOKENS_PER_BLOCK) -> Pool:
    pool = Pool(PrefixIndex(FALLBACK, tokens_per_block), staleness_s=60.0)
    pool.replace_endpoints(Endpoint(f"pod-{number}", f"10.0.0.{number}:8000") for number in range(len(caches)))
    for slot, cache in enumerate(caches):
        pool.record_metrics(slot, 0, 0, 0, NO_ADAPTERS, cache)
    return pool


def send(pool: Pool, slot: int, hashes: range) -> None:
    pool.dispatch(slot, Request("1", "m", block_hashes=tuple(hashes)), 0.0)


def scores(pool: Pool, hashes: range) -> list[float]:
    return [float(score) for score in pool.snapshot(Request("1", "m", block_hashes=tuple(hashes))).prefix_score]


def test_each_endpoint_keeps_as_many_blocks_as_its_cache_holds() -> None:
    pool = pool_of(CacheSize(16 * 4, 16), CacheSize(16 * 100, 16), CacheSize(0, 0))
    assert [pool.prefix_index.capacity(slot) for slot in range(3)] == [4, 100, FALLBACK]
    for slot in range(3):
        for first in range(1, 61, 2):
            send(pool, slot, range(first, first + 2))
    assert scores(pool, range(1, 3)) == [0, 1, 0]
    assert scores(pool, range(45, 47)) == [0, 1, 0]
    assert scores(pool, range(53, 55)) == [0, 1, 1]
    assert scores(pool, range(59, 61)) == [1, 1, 1]


def test_blocks_of_the_index_and_of_the_cache_may_differ_in_length() -> None:
    assert pool_of(CacheSize(128 * 256, 128), tokens_per_block=64.0).prefix_index.capacity(0) == 512
    assert pool_of(CacheSize(16 * 1000, 16), tokens_per_block=64.0).prefix_index.capacity(0) == 250


def test_only_whole_blocks_of_a_cache_are_reused() -> None:
    pool = pool_of(CacheSize(128 * 256, 128), CacheSize(16 * 1000, 16))
    for slot in range(2):
        send(pool, slot, range(1, 21))
    # 20 blocks of 16 tokens are two whole blocks of 128 tokens, which are 16 of them.
    assert scores(pool, range(1, 21)) == [pytest.approx(16 / 20), 1]
    assert scores(pool, range(1, 8)) == [0, 1]


def test_an_index_that_does_not_follow_keeps_what_is_configured() -> None:
    pool = pool_of(CacheSize(16 * 4, 128), tokens_per_block=0.0)
    assert pool.prefix_index.capacity(0) == FALLBACK
    send(pool, 0, range(1, 6))
    assert scores(pool, range(1, 6)) == [1]


def test_a_cache_of_any_size_takes_bounded_memory() -> None:
    assert pool_of(CacheSize(1e12, 16)).prefix_index.capacity(0) == 1 << 20


def test_a_reloaded_configuration_may_follow_or_not() -> None:
    pool = pool_of(CacheSize(16 * 4, 16))
    pool.prefix_index.resize(7)
    assert pool.prefix_index.capacity(0) == 7
    pool.prefix_index.resize(7, tokens_per_block=16.0)
    assert pool.prefix_index.capacity(0) == 4


def test_an_index_alone_has_the_configured_capacity() -> None:
    index = PrefixIndex(2, TOKENS_PER_BLOCK)
    index.add(0, [1, 2, 3])
    assert index.scores([1], np.array([0])).tolist() == [0]
    assert index.scores([2, 3], np.array([0])).tolist() == [1]
