"""Scenarios made into requests to send, and scenarios at another speed."""

from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.evaluation.policies.heuristics import RoundRobin
from lab.evaluation.replay.judging import Judge
from simulator.arrival import Arrival, Scenario
from simulator.cluster import Cluster, Flight
from simulator.hardware import hardware
from simulator.prompt import block_hashes, token_count
from simulator.wire import ChatCompletion, Message
from simulator.workloads import WORKLOADS
from simulator.workloads.texts import sendable
from simulator.workloads.time_scale import scale_time

HASH_TOKENS, BLOCK_TOKENS = 64, 16
POOL = ("h100-llama-3.1-8b", "l40s-llama-3.1-8b")


def scenario_of(*prompts: tuple[int, tuple[int, ...]]) -> Scenario:
    arrivals = tuple(
        Arrival(index, 0.0, tokens, 10, hashes, "tight", 100.0, 10.0) for index, (tokens, hashes) in enumerate(prompts)
    )
    return Scenario("made-up", arrivals, (hardware(POOL[0]),), HASH_TOKENS)


def rendered(text: str) -> bytes:
    """Return the prompt that the server's chat template makes of `text`."""
    return ChatCompletion(model="", messages=[Message(role="user", content=text)]).text()


@st.composite
def prompts(draw: st.DrawFn) -> tuple[int, tuple[int, ...]]:
    pieces = draw(st.lists(st.integers(0, 2), max_size=5))
    # A piece's id stands for all pieces before it as well.
    hashes = tuple(int("".join(map(str, pieces[: end + 1])), 3) + 3**end * 100 for end in range(len(pieces)))
    return HASH_TOKENS * len(pieces) + draw(st.integers(8, HASH_TOKENS - 1)), hashes


@given(prompts(), prompts())
def test_texts_have_the_scenarios_lengths_and_shared_prefixes(
    one: tuple[int, tuple[int, ...]], other: tuple[int, tuple[int, ...]]
) -> None:
    texts = [rendered(request.prompt) for request in sendable(scenario_of(one, other), "salt")]
    assert [token_count(text) for text in texts] == [one[0], other[0]]
    shared_pieces = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one[1], other[1], strict=False))))
    blocks = [block_hashes(text, BLOCK_TOKENS) for text in texts]
    shared_blocks = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*blocks, strict=False))))
    assert shared_blocks == shared_pieces * HASH_TOKENS // BLOCK_TOKENS


def test_the_salt_decides_the_texts() -> None:
    scenario = scenario_of((200, (1, 2, 3)))
    first, again, other = (sendable(scenario, salt)[0] for salt in ("a", "a", "b"))
    assert first == again
    assert first.id != other.id
    assert not set(block_hashes(rendered(first.prompt), 16)) & set(block_hashes(rendered(other.prompt), 16))


def flights(scenario: Scenario) -> list[Flight]:
    judge = Judge(RoundRobin(len(scenario.endpoints), 0))
    Cluster(scenario.endpoints, scenario.hash_tokens, judge).run(scenario.arrivals, scenario.changes)
    return sorted(judge.flights, key=lambda flight: flight.arrival.index)


@pytest.mark.parametrize("workload", ["poisson", "halving"])
def test_a_scaled_scenario_scales_latencies_and_meets_the_same_objectives(workload: str) -> None:
    scenario = WORKLOADS[workload].on(*POOL).scenario(20, 1, 20)
    usual, slow = flights(scenario), flights(scale_time(scenario, 0.25))
    assert [one.ttft_ms for one in slow] == pytest.approx([4 * one.ttft_ms for one in usual], rel=1e-6)
    assert [one.tpot_ms for one in slow] == pytest.approx([4 * one.tpot_ms for one in usual], rel=1e-6)
    assert [one.met for one in slow] == [one.met for one in usual]
    assert 0 < sum(one.met for one in slow) < len(slow)


def test_full_speed_changes_nothing() -> None:
    scenario = scenario_of((100, ()))
    assert scale_time(scenario, 1.0) is scenario
