import numpy as np
import pytest

from lab.evaluation.replay.replay import Prepared, scenario_of
from lab.evaluation.studies.futures import FUTURES, futures_of, join_at, repeated_tpot_ms

RATE, EVEN = 60.0, Prepared((1, 1, 1))


def test_join_at_takes_the_past_of_one_and_the_future_of_the_other() -> None:
    before, after = (scenario_of("bursts", RATE, seed, 4.0) for seed in (1, 2))
    both = join_at(before, after, at_s=2.0)
    assert [arrival.index for arrival in both.arrivals] == list(range(len(both.arrivals)))
    taken = [(arrival.arrival_s, arrival.prompt_tokens) for arrival in both.arrivals]
    past, future = (
        [(arrival.arrival_s, arrival.prompt_tokens) for arrival in scenario.arrivals] for scenario in (before, after)
    )
    assert taken == [one for one in past if one[0] < 2] + [one for one in future if one[0] >= 2]


@pytest.mark.slow
def test_futures_are_equal_up_to_the_moment() -> None:
    one, other = (
        {flight.arrival.index: flight for flight in flights} for flights in futures_of("bursts", RATE, EVEN, 7)
    )
    ended, under_way = 0, 0
    for index in one.keys() & other.keys():
        first, second = one[index], other[index]
        if first.arrival.arrival_s >= 15:
            continue
        assert (first.arrival.arrival_s, first.endpoint) == (second.arrival.arrival_s, second.endpoint)
        if min(first.ended_s or 0, second.ended_s or 0) < 15:
            assert (first.ttft_ms, first.ended_s) == (second.ttft_ms, second.ended_s)
            ended += 1
        else:
            under_way += first.arrival.output_tokens != second.arrival.output_tokens
    assert ended > 500
    assert under_way > 50


@pytest.mark.slow
def test_repeated_requests_differ_only_by_the_future() -> None:
    groups = repeated_tpot_ms("bursts", RATE, EVEN, pasts=2)
    assert {len(group) for group in groups} == {FUTURES}
    assert 10 < len(groups) <= 20
    assert any(group.min() < group.max() for group in groups)
    # The groups' requests share most of their past.
    assert all(group.max() < 3 * group.min() for group in groups)
    assert np.median([group.max() / group.min() for group in groups]) < 1.5
