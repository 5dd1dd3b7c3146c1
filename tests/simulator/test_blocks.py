from simulator.blocks import BlockPool


def pool_with(capacity: int, *cached: int) -> BlockPool:
    """Return a pool in which these blocks are cached and no sequence holds any; the first was cached first."""
    pool = BlockPool(capacity)
    for block in cached:
        assert pool.take(1)
        assert pool.publish(block)
        pool.release([block], 0)
    return pool


def test_a_released_block_stays_cached_and_counts_as_free() -> None:
    pool = pool_with(4, 1)
    assert (pool.used, pool.free, pool.cached_prefix([1, 2])) == (0, 4, 1)


def test_the_block_released_first_is_evicted_first() -> None:
    pool = pool_with(3, 1, 2, 3)
    assert pool.take(1)
    assert [pool.cached_prefix([block]) for block in (1, 2, 3)] == [0, 1, 1]


def test_a_block_in_use_is_never_evicted() -> None:
    pool = pool_with(2, 1, 2)
    pool.hold([1])
    assert pool.take(1)
    assert [pool.cached_prefix([block]) for block in (1, 2)] == [1, 0]
    assert not pool.take(1)


def test_a_shared_block_is_free_when_its_last_holder_leaves() -> None:
    pool = pool_with(2, 1)
    pool.hold([1])
    pool.hold([1])
    pool.release([1], 0)
    assert pool.used == 1
    pool.release([1], 0)
    assert pool.used == 0


def test_the_end_of_a_prefix_is_evicted_before_its_beginning() -> None:
    pool = BlockPool(2)
    assert pool.take(2)
    assert pool.publish(1)
    assert pool.publish(2)
    pool.release([1, 2], 0)
    assert pool.take(1)
    assert pool.cached_prefix([1, 2]) == 1


def test_equal_content_is_published_once() -> None:
    pool = pool_with(2, 1)
    assert not pool.publish(1)
