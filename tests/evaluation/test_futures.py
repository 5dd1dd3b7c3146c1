from scripts.evaluation.futures import FUTURES, parted, repeated_tpot_ms
from scripts.evaluation.replay import Prepared, scenario_of

RATE = 60.0


def test_the_past_is_the_one_and_the_future_the_other() -> None:
    before, after = (scenario_of("bursts", RATE, seed, 4.0) for seed in (1, 2))
    both = parted(before, after, at_s=2.0)
    assert [arrival.index for arrival in both.arrivals] == list(range(len(both.arrivals)))
    taken = [(arrival.arrival_s, arrival.prompt_tokens) for arrival in both.arrivals]
    past, future = (
        [(arrival.arrival_s, arrival.prompt_tokens) for arrival in scenario.arrivals] for scenario in (before, after)
    )
    assert taken == [one for one in past if one[0] < 2] + [one for one in future if one[0] >= 2]


def test_only_the_future_makes_the_same_requests_differ() -> None:
    groups = repeated_tpot_ms("bursts", RATE, Prepared((1, 1, 1)), pasts=2)
    assert {len(group) for group in groups} == {FUTURES}
    assert 10 < len(groups) <= 20
    assert any(group.min() < group.max() for group in groups)
    # They have most of their past in common.
    assert all(group.max() < 3 * group.min() for group in groups)
