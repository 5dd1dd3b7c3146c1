import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from epp.pool.pool import InFlight, Pool
from epp.pool.prefix_index import PrefixIndex, block_hashes
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Endpoint


def make_pool(size: int = 2, staleness_s: float = 60.0) -> Pool:
    pool = Pool(PrefixIndex(1000), staleness_s)
    pool.replace_endpoints(endpoint(i) for i in range(size))
    for slot in pool.endpoints:
        pool.record_metrics(slot, 0, 0, 0)
    return pool


def endpoint(number: int) -> Endpoint:
    return Endpoint(f"pod-{number}", f"10.0.0.{number}:8000")


def request(tokens: int = 100, tpot: float | None = None, hashes: tuple[int, ...] = ()) -> Request:
    return Request("1", "m", input_tokens=tokens, slo_tpot_ms=tpot, block_hashes=hashes)


def test_a_request_is_counted_from_dispatch_to_its_end() -> None:
    pool = make_pool()
    flight = pool.dispatch(0, request(100), prefix_score=0.25)
    assert pool.snapshot(request()).prefill_tokens.tolist() == [75, 0]
    pool.first_token(flight)
    during = pool.snapshot(request())
    assert (during.prefill_tokens[0], during.decode_tokens[0], during.in_flight[0]) == (0, 100, 1)
    pool.finish(flight)
    pool.finish(flight)
    after = pool.snapshot(request())
    assert (after.prefill_tokens[0], after.decode_tokens[0], after.in_flight[0]) == (0, 0, 0)


def test_the_tightest_objective_ignores_requests_without_one() -> None:
    pool = make_pool(1)
    strict, _, loose = (pool.dispatch(0, request(tpot=slo), 0) for slo in (20, None, 40))
    assert pool.snapshot(request()).tightest_tpot_slo_ms[0] == 20
    pool.finish(strict)
    assert pool.snapshot(request()).tightest_tpot_slo_ms[0] == 40
    pool.finish(loose)
    assert math.isinf(pool.snapshot(request()).tightest_tpot_slo_ms[0])


def test_stale_endpoints_are_left_out_while_there_are_fresh_ones() -> None:
    pool = make_pool(2)
    pool.replace_endpoints([endpoint(0), endpoint(1), endpoint(2)])
    assert [e.name for e in pool.snapshot(request()).endpoints] == ["pod-0", "pod-1"]


def test_when_all_are_stale_all_are_candidates_and_marked() -> None:
    pool = Pool(PrefixIndex(10), 60.0)
    pool.replace_endpoints([endpoint(0), endpoint(1)])
    assert pool.snapshot(request()).stale.tolist() == [True, True]


def test_a_subset_hint_limits_the_candidates() -> None:
    snapshot = make_pool(3).snapshot(request(), frozenset(["10.0.0.1"]))
    assert [e.name for e in snapshot.endpoints] == ["pod-1"]
    assert len(make_pool(3).snapshot(request(), frozenset())) == 0


def test_a_new_endpoint_starts_clean_in_a_slot_that_nobody_uses() -> None:
    pool = make_pool(1)
    flight = pool.dispatch(0, request(), 0)
    pool.replace_endpoints([endpoint(9)])
    (slot,) = pool.endpoints
    assert slot != flight.slot
    pool.finish(flight)
    assert pool.snapshot(request()).in_flight.tolist() == [0]


def test_a_removed_endpoint_is_forgotten_by_the_prefix_index() -> None:
    pool = make_pool(1)
    pool.dispatch(0, request(hashes=(1, 2, 3)), 0)
    pool.replace_endpoints([])
    assert len(pool.prefix_index) == 0


@given(st.lists(st.tuples(st.sampled_from(["dispatch", "token", "finish", "churn"]), st.integers(0, 5)), max_size=60))
def test_nothing_is_left_when_all_have_ended(acts: list[tuple[str, int]]) -> None:
    pool = make_pool(3)
    flights: list[InFlight] = []
    for act, number in acts:
        if act == "dispatch" and len(pool):
            slots = list(pool.endpoints)
            flights.append(pool.dispatch(slots[number % len(slots)], request(tpot=10.0 + number), 0.1 * number))
        elif act == "churn":
            pool.replace_endpoints(endpoint(i) for i in range(number))
        elif flights:
            flight = flights[number % len(flights)]
            pool.first_token(flight) if act == "token" else pool.finish(flight)
    for flight in flights:
        pool.finish(flight)
    pool.replace_endpoints(endpoint(i) for i in range(6))
    snapshot = pool.snapshot(request())
    assert pool.in_flight_total == 0
    for column in (snapshot.in_flight, snapshot.prefill_tokens, snapshot.decode_tokens):
        assert not column.any()
    assert np.isinf(snapshot.tightest_tpot_slo_ms).all()


def test_the_score_is_the_share_of_leading_blocks() -> None:
    index, slots = PrefixIndex(100), np.arange(3)
    index.add(0, (1, 2, 3, 4))
    index.add(1, (1, 2))
    index.add(2, (2, 3, 4))
    assert index.scores((1, 2, 3, 4), slots).tolist() == [1.0, 0.5, 0.0]
    assert index.scores((), slots).tolist() == [0, 0, 0]


def test_the_least_recently_used_blocks_are_forgotten() -> None:
    index, slots = PrefixIndex(2), np.arange(1)
    index.add(0, (1, 2))
    index.add(0, (1, 3))
    assert index.scores((1, 3), slots)[0] == 1.0
    assert index.scores((2,), slots)[0] == 0.0
    assert len(index) == 2


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 9), max_size=6)), max_size=30))
def test_the_index_agrees_with_sets(additions: list[tuple[int, list[int]]]) -> None:
    index, held = PrefixIndex(1000), [set[int]() for _ in range(4)]
    for slot, blocks in additions:
        index.add(slot, blocks)
        held[slot].update(blocks)
    wanted = (0, 1, 2, 3)
    for slot in range(4):
        leading = next((depth for depth, block in enumerate(wanted) if block not in held[slot]), len(wanted))
        assert index.scores(wanted, np.array([slot]))[0] == leading / len(wanted)


def test_hashes_depend_on_all_that_came_before() -> None:
    one, other = (block_hashes("m", text + b"x" * 64, 64, 10) for text in (b"a" * 64, b"b" * 64))
    assert len(one) == 2
    assert one[1] != other[1]
    assert block_hashes("n", b"a" * 64, 64, 10) != one[:1]
    assert block_hashes("m", b"a" * 63, 64, 10) == ()
    assert len(block_hashes("m", b"a" * 6400, 64, 10)) == 10
