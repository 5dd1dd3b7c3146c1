"""The pool's counts of the progress of responses in flight."""

import mmap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.pool.in_flight import InFlight
from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from epp.pool.state import PoolState
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Endpoint, TpotSlos
from tests.epp.clock import Clock

ENDPOINTS = (Endpoint("pod-0", "10.0.0.0:8000"), Endpoint("pod-1", "10.0.0.1:8000"))
STEP_S = 0.02


def make_pool(clock: Clock, state: PoolState | None = None) -> Pool:
    pool = Pool(PrefixIndex(10), 1e9, state, clock)
    if state is None:
        pool.replace_endpoints(ENDPOINTS)
    return pool


def sent(pool: Pool, slo_ms: float | None, slot: int = 0) -> InFlight:
    return pool.dispatch(slot, Request("1", "m", input_tokens=10, slo_tpot_ms=slo_ms), 0.0)


def begun(pool: Pool, clock: Clock, slo_ms: float | None, *, observed: bool) -> InFlight:
    flight = sent(pool, slo_ms)
    pool.own_requests.first_token(flight, clock.now_s)
    if observed:
        pool.own_requests.record_ttft(flight, 5.0, clock.now_s)
    return flight


def stepped(pool: Pool, clock: Clock, steps: int, *observed: InFlight) -> None:
    """Every step brings each observed answer a token; after 32 its pace is known."""
    for _ in range(steps):
        clock.now_s += STEP_S
        for flight in observed:
            pool.own_requests.saw_tokens(flight, 1, clock.now_s)
    if observed:
        pool.own_requests.record_gap(0, steps * STEP_S * 1000, steps)


def slos(pool: Pool) -> TpotSlos:
    return pool.tpot_slos(np.arange(2))


def of_first(column: object) -> list[float]:
    """Return the first endpoint's groups that have requests."""
    return [float(value) for value in column[0] if value]  # type: ignore[index]


def test_objectives_in_flight_are_counted_until_their_requests_end() -> None:
    pool = make_pool(Clock())
    flights = [sent(pool, slo_ms) for slo_ms in (1.0, 20.0, 20.4, 9e6, None)]
    counted = slos(pool)
    assert of_first(counted.requests) == [1, 2, 1]
    assert of_first(counted.slo_ms) == pytest.approx([1.0, 20.2, 9e6])
    assert not counted.requests[1].any()
    for flight in flights:
        pool.own_requests.finish(flight)
        pool.own_requests.finish(flight)
    assert slos(pool).requests.shape == (2, 0)


def test_unobserved_responses_are_counted_by_the_steps_of_observed_ones() -> None:
    clock = Clock()
    pool = make_pool(clock)
    observed = [begun(pool, clock, None, observed=True) for _ in range(2)]
    stepped(pool, clock, 40, *observed)
    begun(pool, clock, 30.0, observed=False)
    stepped(pool, clock, 50, *observed)
    assert of_first(slos(pool).tokens) == pytest.approx([50])
    assert of_first(slos(pool).decoding_ms) == pytest.approx([50 * STEP_S * 1000])


def test_a_slow_step_brings_no_more_tokens_than_a_quick_one() -> None:
    clock = Clock()
    pool = make_pool(clock)
    flight = begun(pool, clock, 30.0, observed=True)
    stepped(pool, clock, 10, flight)
    clock.now_s += 3.0
    pool.own_requests.saw_tokens(flight, 1, clock.now_s)
    assert of_first(slos(pool).tokens) == pytest.approx([11])
    assert of_first(slos(pool).decoding_ms) == pytest.approx([3000 + 10 * STEP_S * 1000])


def test_without_an_observed_response_the_last_known_speed_counts() -> None:
    clock = Clock()
    pool = make_pool(clock)
    watched = begun(pool, clock, None, observed=True)
    begun(pool, clock, 30.0, observed=False)
    stepped(pool, clock, 40, watched)
    pool.own_requests.finish(watched)
    clock.now_s += 60 * STEP_S
    assert of_first(slos(pool).tokens) == pytest.approx([100], rel=0.01)


def test_there_is_no_progress_before_the_first_token() -> None:
    clock = Clock()
    pool = make_pool(clock)
    stepped(pool, clock, 40, begun(pool, clock, 30.0, observed=True))
    sent(pool, 30.0)
    clock.now_s += 1.0
    assert of_first(slos(pool).requests) == [2]
    assert of_first(slos(pool).tokens) == pytest.approx([20])


def test_workers_count_by_the_steps_that_each_of_them_sees() -> None:
    clock = Clock()
    memory = mmap.mmap(-1, PoolState.size_bytes(2))
    states = [PoolState(memory, worker, 2) for worker in range(2)]
    states[0].clear_all()
    pools = [make_pool(clock, state) for state in states]
    pools[0].replace_endpoints(ENDPOINTS)
    pools[1].adopt_endpoints(pools[0].endpoints)
    flights = [begun(pools[0], clock, 30.0, observed=True)]
    stepped(pools[0], clock, 40, *flights)
    flights.append(begun(pools[1], clock, 30.0, observed=True))
    clock.now_s += 20 * STEP_S
    for pool, flight in zip(pools, flights, strict=True):
        pool.own_requests.saw_tokens(flight, 20, clock.now_s)
    for pool in pools:
        assert of_first(slos(pool).requests) == [2]
        assert of_first(slos(pool).tokens) == pytest.approx([(60 + 20) / 2])
        assert of_first(slos(pool).decoding_ms) == pytest.approx([(60 + 20) / 2 * STEP_S * 1000])
    states[1].clear_worker(1)
    assert of_first(slos(pools[0]).tokens) == pytest.approx([60])


lengths = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 60), st.sampled_from([15.0, 30.0])), max_size=12)


@given(lengths)
def test_counts_equal_the_sum_over_all_responses(answers: list[tuple[int, int, float]]) -> None:
    """Answers begin at a step and end after some tokens; another is observed all the time."""
    clock = Clock()
    pool = make_pool(clock)
    other = begun(pool, clock, None, observed=True)
    flights: dict[int, tuple[InFlight, int]] = {}
    for step in range(40):
        for index, (first, _, slo_ms) in enumerate(answers):
            if first == step:
                flights[index] = begun(pool, clock, slo_ms, observed=False), step
        clock.now_s += STEP_S
        pool.own_requests.saw_tokens(other, 1, clock.now_s)
        for index in [index for index, (_, first) in flights.items() if step - first + 1 == answers[index][1]]:
            pool.own_requests.finish(flights.pop(index)[0])
    for slo_ms in {slo_ms for _, _, slo_ms in answers}:
        tokens = [40 - first for index, (_, first) in flights.items() if answers[index][2] == slo_ms]
        counted = slos(pool)
        group = [i for i, one in enumerate(counted.slo_ms[0]) if one == pytest.approx(slo_ms)]
        assert bool(group) == bool(tokens)
        for place in group:
            assert counted.requests[0, place] == len(tokens)
            assert counted.tokens[0, place] == pytest.approx(sum(tokens) / len(tokens))
