import math
import mmap
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.pool.in_flight import InFlight
from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex, block_hashes
from epp.pool.state import CAPACITY, PoolState
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Endpoint
from tests.epp.clock import Clock


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
    pool.own_requests.first_token(flight, time.monotonic())
    during = pool.snapshot(request())
    assert (during.prefill_tokens[0], during.decode_tokens[0], during.in_flight[0]) == (0, 100, 1)
    pool.own_requests.finish(flight)
    pool.own_requests.finish(flight)
    after = pool.snapshot(request())
    assert (after.prefill_tokens[0], after.decode_tokens[0], after.in_flight[0]) == (0, 0, 0)


def test_the_tightest_objective_ignores_requests_without_one() -> None:
    pool = make_pool(1)
    strict, _, loose = (pool.dispatch(0, request(tpot=slo), 0) for slo in (20, None, 40))
    assert pool.snapshot(request()).tightest_tpot_slo_ms[0] == 20
    pool.own_requests.finish(strict)
    assert pool.snapshot(request()).tightest_tpot_slo_ms[0] == 40
    pool.own_requests.finish(loose)
    assert math.isinf(pool.snapshot(request()).tightest_tpot_slo_ms[0])


def test_stale_endpoints_are_no_candidates_while_others_are_fresh() -> None:
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


def test_a_new_endpoint_gets_an_unused_slot_without_old_counts() -> None:
    pool = make_pool(1)
    flight = pool.dispatch(0, request(), 0)
    pool.replace_endpoints([endpoint(9)])
    (slot,) = pool.endpoints
    assert slot != flight.slot
    pool.own_requests.finish(flight)
    assert pool.snapshot(request()).in_flight.tolist() == [0]


def test_a_removed_endpoint_is_forgotten_by_the_prefix_index() -> None:
    pool = make_pool(1)
    pool.dispatch(0, request(hashes=(1, 2, 3)), 0)
    pool.replace_endpoints([])
    assert len(pool.prefix_index) == 0


def test_requests_sent_since_the_last_scrape_count_as_waiting() -> None:
    pool = make_pool(2)
    pool.dispatch(0, request(), 0)
    pool.dispatch(0, request(), 0)
    assert pool.snapshot(request()).waiting.tolist() == [2, 0]
    pool.record_metrics(0, waiting=0, running=2, kv_usage=0.1)
    assert pool.snapshot(request()).waiting.tolist() == [0, 0]


def test_a_request_that_ended_before_the_next_scrape_is_not_waiting() -> None:
    pool = make_pool(1)
    pool.own_requests.finish(pool.dispatch(0, request(), 0))
    assert pool.snapshot(request()).waiting.tolist() == [0]


def load(pool: Pool) -> tuple[float, float]:
    """Return the waiting and running requests of the first endpoint."""
    found = pool.snapshot(request())
    return float(found.waiting[0]), float(found.running[0])


def timed_pool() -> tuple[Pool, Clock]:
    clock = Clock(1000.0)
    pool = Pool(PrefixIndex(10), 60.0, clock=clock)
    pool.replace_endpoints([endpoint(0)])
    return pool, clock


def test_between_two_scrapes_own_requests_start_and_end() -> None:
    pool, clock = timed_pool()
    first, second = pool.dispatch(0, request(), 0), pool.dispatch(0, request(), 0)
    pool.record_metrics(0, waiting=0, running=2, kv_usage=0.1)
    clock.now_s += 0.03
    third = pool.dispatch(0, request(), 0)
    assert load(pool) == (1, 2)
    pool.own_requests.finish(first)
    assert load(pool) == (1, 1)
    clock.now_s += 0.06
    assert load(pool) == (0, 2)
    pool.own_requests.finish(second)
    pool.own_requests.finish(third)
    assert load(pool) == (0, 0)


def test_an_old_queue_is_no_longer_than_own_requests_without_a_first_token() -> None:
    pool, clock = timed_pool()
    flights = [pool.dispatch(0, request(), 0) for _ in range(5)]
    for flight in flights[:2]:
        pool.own_requests.first_token(flight, clock.now_s)
    pool.record_metrics(0, waiting=3, running=2, kv_usage=0.1)
    pool.own_requests.first_token(flights[2], clock.now_s)
    assert load(pool) == (3, 2)
    clock.now_s += 0.3
    assert load(pool) == (2, 3)
    pool.own_requests.finish(flights[3])
    assert load(pool) == (1, 3)


def test_requests_of_others_stay_as_scraped() -> None:
    pool, clock = timed_pool()
    own = pool.dispatch(0, request(), 0)
    pool.own_requests.first_token(own, clock.now_s)
    pool.record_metrics(0, waiting=4, running=6, kv_usage=0.1)
    pool.own_requests.finish(own)
    clock.now_s += 0.5
    assert load(pool) == (4, 5)
    pool.dispatch(0, request(), 0)
    assert load(pool) == (5, 5)


def test_requests_just_sent_leave_with_their_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epp.pool.pool._REST_S", 0.0)
    pool, clock = timed_pool()
    pool.own_requests.finish(pool.dispatch(0, request(), 0))
    pool.replace_endpoints([endpoint(1)])
    assert list(pool.endpoints) == [0]
    clock.now_s += 1.0
    assert load(pool) == (0, 0)
    pool.dispatch(0, request(), 0)
    assert load(pool) == (1, 0)


def test_an_unobserved_response_decodes_from_its_expected_first_token_on() -> None:
    clock = Clock(1000.0)
    pool = Pool(PrefixIndex(10), 1e9, clock=clock)
    pool.replace_endpoints([endpoint(0)])
    pool.own_requests.record_gap(0, gap_ms=20, tokens=1)
    flight = pool.dispatch(0, request(100), 0)
    pool.own_requests.expect_first_token(flight, clock.now_s + 0.5)
    assert pool.snapshot(request()).prefill_tokens.tolist() == [100]
    clock.now_s += 0.5
    assert pool.snapshot(request()).prefill_tokens.tolist() == [0]
    clock.now_s += 1.0
    # One token every 20 ms, for a second.
    assert pool.snapshot(request()).decode_tokens.tolist() == [150]
    pool.own_requests.finish(flight)
    assert pool.snapshot(request()).decode_tokens.tolist() == [0]


def test_an_observed_token_marks_the_start_of_the_endpoints_step() -> None:
    clock = Clock(1000.0)
    pool = Pool(PrefixIndex(10), 1e9, clock=clock)
    pool.replace_endpoints([endpoint(0), endpoint(1)])

    def since() -> list[float | None]:
        return [None if np.isnan(ms) else round(ms, 6) for ms in pool.snapshot(request()).ms_since_token.tolist()]

    assert since() == [None, None]
    flight, unobserved = (pool.dispatch(slot, request(), 0) for slot in range(2))
    pool.own_requests.expect_first_token(unobserved, clock.now_s)
    assert since() == [None, None]
    pool.own_requests.first_token(flight, clock.now_s)
    pool.own_requests.record_ttft(flight, 50.0, clock.now_s)
    clock.now_s += 0.25
    assert since() == [250, None]
    pool.own_requests.saw_tokens(flight, 1, clock.now_s)
    assert since() == [0, None]
    # A long step still counts as one while a response awaits its token.
    clock.now_s += 30
    assert since() == [30_000, None]
    pool.own_requests.finish(flight)
    assert since() == [None, None]


def test_counted_tokens_are_held_until_the_end() -> None:
    pool = make_pool(1)
    flight = pool.dispatch(0, request(10), 0)
    pool.own_requests.first_token(flight, time.monotonic())
    pool.own_requests.saw_tokens(flight, 7, time.monotonic())
    assert pool.snapshot(request()).decode_tokens.tolist() == [17]
    pool.own_requests.finish(flight)
    pool.own_requests.saw_tokens(flight, 7, time.monotonic())
    assert pool.snapshot(request()).decode_tokens.tolist() == [0]


def test_roles_come_from_the_endpoints_labels() -> None:
    pool = Pool(PrefixIndex(10), 1e9)
    labels: list[dict[str, str]] = [{"llm-d.ai/role": "prefill"}, {"llm-d.ai/role": "decode"}, {}]
    pool.replace_endpoints(Endpoint(f"p{i}", f"10.0.0.{i}:1", label) for i, label in enumerate(labels))
    assert np.nan_to_num(pool.snapshot(request()).role).tolist() == [1, 2, 0]


def test_ipv6_endpoints_are_chosen_by_a_subset_hint() -> None:
    pool = Pool(PrefixIndex(10), 1e9)
    pool.replace_endpoints([Endpoint("a", "[2001:db8::1]:8000"), Endpoint("b", "[2001:db8::2]:8000")])
    assert [e.name for e in pool.snapshot(request(), frozenset(["2001:db8::2"])).endpoints] == ["b"]


def test_a_pool_larger_than_its_slots_leaves_the_rest_out() -> None:
    pool = Pool(PrefixIndex(10), 1e9)
    pool.replace_endpoints(Endpoint(f"p{i}", f"10.{i >> 8}.{i & 255}.1:1") for i in range(CAPACITY + 1))
    assert len(pool) == CAPACITY


def test_every_worker_sees_the_counts_of_all() -> None:
    memory = mmap.mmap(-1, PoolState.size_bytes(2))
    first, second = (PoolState(memory, worker, 2) for worker in range(2))
    first.clear_all()
    pools = [Pool(PrefixIndex(10), 1e9, state) for state in (first, second)]
    pools[0].replace_endpoints([endpoint(0), endpoint(1)])
    pools[1].adopt_endpoints(pools[0].endpoints)
    flights = [pools[0].dispatch(1, request(tpot=30), 0), pools[1].dispatch(1, request(tpot=20), 0)]
    pools[1].own_requests.record_gap(0, 10, 1)
    pools[0].own_requests.record_gap(0, 30, 1)
    for worker, pool in enumerate(pools):
        pool.own_requests.record_ttft(flights[worker], 5.0, time.monotonic() - 10 * (worker + 1))
    for pool in pools:
        seen = pool.snapshot(request())
        assert 10_000 <= seen.ms_since_token[1] < 20_000
        assert (seen.in_flight.tolist(), seen.tightest_tpot_slo_ms[1]) == ([0, 2], 20)
        assert (seen.recent_tpot_ms[0], bool(np.isnan(seen.recent_tpot_ms[1]))) == (20, True)
    pools[0].own_requests.finish(flights[0])
    assert np.isfinite(pools[0].snapshot(request()).ms_since_token).tolist() == [False, True]
    second.clear_worker(1)
    assert pools[0].snapshot(request()).in_flight.tolist() == [0, 0]
    assert np.isnan(pools[0].snapshot(request()).ms_since_token).all()


acts = st.sampled_from(["dispatch", "token", "observe", "expect", "generate", "finish", "churn"])


@given(st.lists(st.tuples(acts, st.integers(0, 5)), max_size=60))
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
            match act:
                case "token":
                    pool.own_requests.first_token(flight, time.monotonic())
                case "observe":
                    pool.own_requests.record_ttft(flight, 5.0, time.monotonic())
                case "expect":
                    pool.own_requests.expect_first_token(flight, time.monotonic())
                    pool.snapshot(request())
                case "generate":
                    pool.own_requests.saw_tokens(flight, number, time.monotonic())
                case "finish":
                    pool.own_requests.finish(flight)
    for flight in flights:
        pool.own_requests.finish(flight)
    pool.replace_endpoints(endpoint(i) for i in range(6))
    snapshot = pool.snapshot(request())
    assert pool.own_requests.in_flight == 0
    for column in (snapshot.in_flight, snapshot.prefill_tokens, snapshot.decode_tokens):
        assert not column.any()
    assert np.isinf(snapshot.tightest_tpot_slo_ms).all()
    assert not pool.tpot_slos(snapshot.slots).requests.size
    assert np.isnan(snapshot.ms_since_token).all()


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


def test_a_blocks_hash_depends_on_all_earlier_blocks() -> None:
    one, other = (block_hashes("m", text + b"x" * 64, 64, 10) for text in (b"a" * 64, b"b" * 64))
    assert len(one) == 2
    assert one[1] != other[1]
    assert block_hashes("n", b"a" * 64, 64, 10) != one[:1]
    assert block_hashes("m", b"a" * 63, 64, 10) == ()
    assert len(block_hashes("m", b"a" * 6400, 64, 10)) == 10
