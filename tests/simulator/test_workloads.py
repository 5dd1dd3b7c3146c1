import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.arrival import Arrival, Scenario
from simulator.hardware import hardware
from simulator.workloads import WORKLOADS, Workload, azure_conversation, mooncake_conversation
from simulator.workloads.capacity import cached_share, pool_tokens
from simulator.workloads.catalogue import CHATS
from simulator.workloads.draw import Requests
from simulator.workloads.objectives import unloaded_tpot_ms, unloaded_ttft_ms
from simulator.workloads.sessions import HASH_TOKENS, draw_sessions

NAMES = [
    "azure-conversation",
    "azure-code",
    "mooncake-conversation",
    "mooncake-synthetic",
    "poisson",
    "bursts",
    "shared-prefix",
    "shared-prefix-thrash",
    "heavy-tails",
    "slo-mix",
    "heterogeneous",
    "degrading",
    "stall",
    "halving",
]
WITH_PREFIXES = {"mooncake-conversation", "mooncake-synthetic", "shared-prefix", "shared-prefix-thrash"}
workloads = pytest.mark.parametrize("workload", list(WORKLOADS.values()), ids=list(WORKLOADS))


def _but_time(arrival: Arrival) -> Arrival:
    return replace(arrival, arrival_s=0.0)


def _times(scenario: Scenario) -> list[float]:
    return [arrival.arrival_s for arrival in scenario.arrivals]


def test_the_workloads_are_known_by_name() -> None:
    assert list(WORKLOADS) == NAMES
    assert all(workload.name == name and workload.description for name, workload in WORKLOADS.items())


@workloads
def test_a_scenario_has_the_rate_and_requests_in_order(workload: Workload) -> None:
    scenario = workload.scenario(20.0, seed=3, seconds=30.0)
    times = _times(scenario)
    assert len(times) == 600
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 30
    assert [arrival.index for arrival in scenario.arrivals] == list(range(600))
    assert len(set(times)) > 500  # they come one by one


@workloads
def test_a_seed_decides_everything(workload: Workload) -> None:
    first = workload.scenario(10.0, seed=1, seconds=20.0)
    assert workload.scenario(10.0, seed=1, seconds=20.0) == first
    other = workload.scenario(10.0, seed=2, seconds=20.0)
    assert [_but_time(one) for one in other.arrivals] != [_but_time(one) for one in first.arrivals]
    assert _times(other) != _times(first)


@workloads
def test_another_rate_brings_the_same_requests_with_other_gaps(workload: Workload) -> None:
    slow, fast = workload.scenario(10.0, seed=1, seconds=20.0), workload.scenario(25.0, seed=1, seconds=20.0)
    assert [_but_time(one) for one in slow.arrivals] == [_but_time(one) for one in fast.arrivals[:200]]
    assert _times(slow) != _times(fast)[:200]


@workloads
def test_every_request_fits_into_every_endpoint(workload: Workload) -> None:
    scenario = workload.scenario(30.0, seed=5, seconds=30.0)
    for endpoint in scenario.endpoints:
        longest = min(endpoint.max_model_len, endpoint.num_blocks * endpoint.block_tokens)
        assert all(one.prompt_tokens + one.output_tokens <= longest for one in scenario.arrivals)
    assert all(one.prompt_tokens >= 1 and one.output_tokens >= 1 for one in scenario.arrivals)


def test_lengths_are_cut_to_the_limits_of_smaller_engines() -> None:
    workload = WORKLOADS["mooncake-conversation"].on("slow")
    scenario = workload.scenario(30.0, seed=5, seconds=30.0)
    assert max(one.prompt_tokens + one.output_tokens for one in scenario.arrivals) == hardware("slow").max_model_len
    assert all(len(one.hashes) == one.prompt_tokens // 512 for one in scenario.arrivals)


@workloads
def test_a_piece_id_implies_all_earlier_ids(workload: Workload) -> None:
    scenario = workload.scenario(30.0, seed=1, seconds=40.0)
    before: dict[int, tuple[int, int]] = {}
    for arrival in scenario.arrivals:
        assert len(arrival.hashes) in (0, arrival.prompt_tokens // scenario.hash_tokens)
        for depth, (earlier, one) in enumerate(itertools.pairwise((-1, *arrival.hashes))):
            assert before.setdefault(one, (depth, earlier)) == (depth, earlier)
    assert bool(before) == (workload.name in WITH_PREFIXES)


@pytest.mark.parametrize("name", sorted(WITH_PREFIXES))
def test_prefixes_are_shared_within_a_lap_and_not_beyond_it(name: str) -> None:
    scenario = WORKLOADS[name].scenario(100.0, seed=1, seconds=41.0)
    firsts = [one.hashes[0] for one in scenario.arrivals if one.hashes]
    assert len(set(firsts)) < len(firsts)
    if name == "mooncake-conversation":  # its sample has 4,000 requests
        assert not set(scenario.arrivals[0].hashes) & set(scenario.arrivals[4000].hashes)


@workloads
def test_objectives_are_multiples_of_the_unloaded_latency(workload: Workload) -> None:
    scenario = workload.scenario(30.0, seed=2, seconds=40.0)
    by_name = {multiple.name: multiple for multiple in workload.mix}
    prompt = np.array([max(one.prompt_tokens, workload.median_prompt_tokens) for one in scenario.arrivals])
    output = np.array([one.output_tokens for one in scenario.arrivals])
    ttft = np.array([by_name[one.slo_class].ttft for one in scenario.arrivals])
    tpot = np.array([by_name[one.slo_class].tpot for one in scenario.arrivals])
    asked_ttft = [one.slo_ttft_ms for one in scenario.arrivals]
    asked_tpot = [one.slo_tpot_ms for one in scenario.arrivals]
    np.testing.assert_allclose(asked_ttft, ttft * unloaded_ttft_ms(workload.fastest, prompt), atol=1e-3)
    np.testing.assert_allclose(asked_tpot, tpot * unloaded_tpot_ms(workload.fastest, prompt, output), atol=1e-3)
    for multiple in workload.mix:
        share = sum(one.slo_class == multiple.name for one in scenario.arrivals) / len(scenario.arrivals)
        assert share == pytest.approx(multiple.share, abs=0.06)


def test_an_unloaded_prompt_is_prefilled_in_the_largest_steps() -> None:
    fast = hardware("fast")  # steps of 1,024 tokens at most
    pieces = [(1024, 0), (1024, 1024), (500, 2048)]
    expected = sum(fast.cost.dense_ms(size) + fast.cost.prefill_attention_ms(size, at) for size, at in pieces)
    assert unloaded_ttft_ms(fast, np.array([2548]))[0] == pytest.approx(expected)
    assert unloaded_ttft_ms(fast, np.array([1024]))[0] == pytest.approx(
        fast.cost.dense_ms(1024) + fast.cost.prefill_attention_ms(1024, 0)
    )
    assert unloaded_tpot_ms(fast, np.array([1000]), np.array([200]))[0] == pytest.approx(
        fast.cost.dense_ms(1) + fast.cost.decode_attention_ms(1, 1100)
    )


def test_objectives_of_a_mixed_pool_are_those_of_its_fastest_hardware() -> None:
    workload = WORKLOADS["heterogeneous"]
    assert [endpoint.name.split("-")[0] for endpoint in workload.endpoints].count("l40s") == 2
    assert workload.fastest.name.startswith("h100")
    assert len({endpoint.name for endpoint in workload.endpoints}) == 3


def test_a_turns_prompt_contains_the_earlier_turns() -> None:
    turns = draw_sessions(replace(CHATS, alive=3), seed=1, count=60)
    last: dict[int, int] = {}
    repeated = 0
    for index, hashes in enumerate(turns.hashes):
        # If this turn continues a session, it contains the last whole piece of the session's earlier turn.
        earlier = next((last[one] for one in hashes if one in last), None)
        if earlier is not None and hashes[: len(turns.hashes[earlier])] == turns.hashes[earlier]:
            said = turns.prompt_tokens[earlier] + turns.output_tokens[earlier]
            assert turns.prompt_tokens[index] > said
            repeated += 1
        last[hashes[-1]] = index
    assert repeated > 30


@pytest.mark.parametrize("name", ["shared-prefix", "shared-prefix-thrash"])
def test_a_session_keeps_its_class_of_objectives(name: str) -> None:
    arrivals = WORKLOADS[name].scenario(20.0, 3, 100.0).arrivals
    classes: dict[int, set[str]] = {}
    for arrival in arrivals:
        # Numbers below 64 belong to the applications' system prompts, which sessions share.
        if (session := arrival.hashes[-1] >> 20) >= 64:
            classes.setdefault(session, set()).add(arrival.slo_class)
    assert len(classes) > 50
    assert all(len(of_session) == 1 for of_session in classes.values())


def test_only_the_thrashing_workload_exceeds_all_caches() -> None:
    def alive_tokens(workload: Workload) -> int:
        scenario = workload.scenario(40.0, seed=0, seconds=100.0)
        return len({one for arrival in scenario.arrivals for one in arrival.hashes}) * workload.hash_tokens

    fits, thrashes = WORKLOADS["shared-prefix"], WORKLOADS["shared-prefix-thrash"]
    assert alive_tokens(fits) < pool_tokens(fits.endpoints)
    assert alive_tokens(thrashes) > 2 * pool_tokens(thrashes.endpoints)


def test_cached_share_counts_pieces_that_are_not_evicted() -> None:
    requests = Requests(np.array([20, 20, 20]), np.array([1, 1, 1]), [(1, 2), (3, 4), (1, 2)])
    assert cached_share(requests, hash_tokens=10, cache_tokens=40) == pytest.approx(1 / 3)
    assert cached_share(requests, hash_tokens=10, cache_tokens=20) == 0


def test_bursts_vary_more_than_a_poisson_process() -> None:
    """In a Poisson process, the variance of the counts equals their mean."""

    def spread(name: str) -> float:
        counts = np.histogram(_times(WORKLOADS[name].scenario(20.0, 1, 500.0)), bins=500, range=(0, 500))[0]
        return float(counts.var() / counts.mean())

    assert 0.8 < spread("poisson") < 1.2
    assert spread("bursts") > 4


def test_a_tenth_of_heavy_tailed_requests_has_two_fifths_of_all_tokens() -> None:
    scenario = WORKLOADS["heavy-tails"].scenario(100.0, 1, 100.0)
    prompts = np.sort([one.prompt_tokens for one in scenario.arrivals])
    assert prompts[-1_000:].sum() > 0.4 * prompts.sum()  # a tenth of the requests


def test_requests_of_one_tick_of_mooncakes_clock_are_spread() -> None:
    times = np.array(_times(WORKLOADS["mooncake-conversation"].scenario(10.0, 1, 100.0)))
    assert (np.diff(times) > 0).all()


def test_endpoints_degrade_to_half_speed_step_by_step() -> None:
    changes = WORKLOADS["degrading"].scenario(5.0, seed=1, seconds=100.0).changes
    assert len({change.endpoint for change in changes}) == 2
    assert [change.at_s for change in changes] == sorted(change.at_s for change in changes)
    for endpoint in {change.endpoint for change in changes}:
        slowdowns = [change.slowdown for change in changes if change.endpoint == endpoint]
        assert slowdowns == pytest.approx([1 + step / 10 for step in range(1, 11)])


def test_an_endpoint_stalls_in_the_middle_and_comes_back() -> None:
    begin, end = WORKLOADS["stall"].scenario(5.0, seed=1, seconds=100.0).changes
    assert (begin.at_s, end.at_s) == (40, 60)
    assert begin.endpoint == end.endpoint
    assert begin.slowdown > 1000
    assert end.slowdown == 1
    short = WORKLOADS["stall"].scenario(5.0, seed=1, seconds=40.0).changes
    assert [change.at_s for change in short] == [15, 25]


def test_an_endpoint_halves_its_speed_once() -> None:
    (change,) = WORKLOADS["halving"].scenario(5.0, seed=1, seconds=100.0).changes
    assert (change.at_s, change.slowdown) == (40, 2)
    chosen = {WORKLOADS["halving"].scenario(5.0, seed, 100.0).changes[0].endpoint for seed in range(20)}
    assert len(chosen) > 4


@workloads
def test_a_search_begins_at_a_rate_that_the_pool_can_almost_take(workload: Workload) -> None:
    scenario = workload.scenario(workload.typical_rps, seed=0, seconds=20.0)
    prompt = np.array([one.prompt_tokens for one in scenario.arrivals])
    prefill_s = unloaded_ttft_ms(workload.fastest, prompt).sum() / 1000
    # Even the fastest hardware spends more than a tenth of its time on prompts if nothing is cached.
    assert 0.1 < prefill_s / (20.0 * len(scenario.endpoints)) < 5


def test_a_search_begins_lower_where_requests_come_in_bursts() -> None:
    workload = WORKLOADS["azure-code"]
    assert workload.typical_rps == pytest.approx(replace(workload, burstiness=1.0).typical_rps / 4)


@given(
    name=st.sampled_from(NAMES),
    requests_per_s=st.floats(0.1, 20),
    seed=st.integers(0, 2**40),
    seconds=st.floats(0.5, 20),
)
@settings(max_examples=40)
def test_any_rate_seed_and_time_give_a_scenario(name: str, requests_per_s: float, seed: int, seconds: float) -> None:
    scenario = WORKLOADS[name].scenario(requests_per_s, seed, seconds)
    times = _times(scenario)
    assert len(times) == max(1, round(requests_per_s * seconds))
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < seconds
    assert all(0 <= change.at_s <= seconds for change in scenario.changes)
    assert all(0 <= change.endpoint < len(scenario.endpoints) for change in scenario.changes)


@pytest.mark.parametrize(
    ("requests_per_s", "seed", "seconds", "expected"),
    [
        (0.0, 0, 10.0, "requests_per_s: expected a number above 0, got 0"),
        (float("nan"), 0, 10.0, "requests_per_s: expected"),
        (1.0, 0, float("inf"), "seconds: expected a number above 0"),
        (1.0, -1, 10.0, "seed: expected a whole number of at least 0, got -1"),
        (1e6, 0, 1e6, "at most 10,000,000 requests"),
    ],
)
def test_an_error_names_the_value_out_of_bounds(
    requests_per_s: float, seed: int, seconds: float, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        WORKLOADS["poisson"].scenario(requests_per_s, seed, seconds)


def test_an_own_trace_file_replaces_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,100,10\n0,200,20\n")
    scenario = azure_conversation(path).scenario(2.0, seed=0, seconds=3.0)
    assert sorted({one.prompt_tokens for one in scenario.arrivals}) == [100, 200]
    path.write_text('{"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [0, 1, 2]}\n')
    scenario = mooncake_conversation(path).scenario(2.0, seed=0, seconds=3.0)
    assert [one.hashes for one in scenario.arrivals] == [(2 * lap, 2 * lap + 1) for lap in range(6)]


def test_a_smaller_count_of_turns_is_a_prefix() -> None:
    few, many = draw_sessions(CHATS, seed=4, count=50), draw_sessions(CHATS, seed=4, count=5_000)
    assert list(few.hashes) == list(many.hashes[:50])
    assert (few.prompt_tokens == many.prompt_tokens[:50]).all()
    assert all(len(ids) == tokens // HASH_TOKENS for ids, tokens in zip(few.hashes, few.prompt_tokens, strict=True))
