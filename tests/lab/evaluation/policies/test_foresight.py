"""Predicted futures, compared with the cluster's behaviour when no other request comes."""

from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.evaluation.policies.foresight import (
    begin_reading,
    begins_later,
    foresee,
    load_of,
    prompt_of,
    read_all_but_last,
    read_prompts,
)
from simulator.arrival import Arrival, Change
from simulator.cluster import Cluster, Flight, Placement
from simulator.hardware import PRESETS, Hardware, hardware

H100 = hardware("h100-llama-3.1-8b")
# Small budgets, so that prompts are read in pieces and have to wait, and enough blocks for all.
SMALL = replace(PRESETS["fast"], num_blocks=10_000, max_num_seqs=4, max_num_batched_tokens=64)
NARROW = replace(H100, max_num_batched_tokens=256, max_num_seqs=6)

gaps = st.tuples(st.floats(0.0, 0.5), st.integers(1, 600), st.integers(1, 80))
asked = st.lists(gaps, min_size=1, max_size=15)


def arrivals_of(asked: list[tuple[float, int, int]]) -> list[Arrival]:
    at_s = accumulate(gap_s for gap_s, _, _ in asked)
    return [
        Arrival(index, second, prompt, output, (), "normal", 1000.0, 100.0)
        for index, (second, (_, prompt, output)) in enumerate(zip(at_s, asked, strict=True))
    ]


class Foreseeing:
    """An observer that predicts all requests' times when the last one comes, in the two steps of the oracle."""

    def __init__(self, last: int) -> None:
        self.cluster: Cluster | None = None
        self.last = last
        self.first_s: dict[int, float] = {}
        self.ended_s: dict[int, float] = {}
        self.flights: list[Flight] = []

    def place(self, arrival: Arrival, now_s: float) -> Placement:
        assert self.cluster
        if arrival.index == self.last:
            load = load_of(self.cluster, 0, now_s)
            reading = begin_reading(load)
            last = read_all_but_last(load, reading)
            read_prompts(load, reading, [*last, prompt_of(arrival, 0)])
            future = foresee(load, reading)
            first_s = np.where(np.isnan(future.first_s), load.at_s, future.first_s)
            self.first_s = dict(zip(future.requests.tolist(), first_s.tolist(), strict=True))
            self.ended_s = dict(zip(future.requests.tolist(), future.ended_s.tolist(), strict=True))
        return Placement(0)

    def first_token(self, flight: Flight, now_s: float) -> None: ...

    def marked(self, flight: Flight, tokens: int, now_s: float) -> None: ...

    def ended(self, flight: Flight, now_s: float) -> None:
        self.flights.append(flight)


def check(endpoint: Hardware, arrivals: list[Arrival], changes: tuple[Change, ...], relative: float) -> None:
    observer = Foreseeing(len(arrivals) - 1)
    observer.cluster = Cluster([endpoint], 16, observer)
    observer.cluster.run(arrivals, changes)
    now_s = arrivals[-1].arrival_s
    for flight in observer.flights:
        assert flight.first_token_s is not None
        assert flight.ended_s is not None
        index = flight.arrival.index
        if index not in observer.ended_s:
            assert flight.ended_s <= now_s
            continue
        assert observer.ended_s[index] - now_s == pytest.approx(flight.ended_s - now_s, rel=relative, abs=1e-6)
        if flight.first_token_s > now_s:
            assert observer.first_s[index] - now_s == pytest.approx(
                flight.first_token_s - now_s, rel=relative, abs=1e-6
            )


@given(asked, st.sampled_from([1.0, 2.5]))
@settings(max_examples=150)
def test_predicted_futures_match_the_engine(asked: list[tuple[float, int, int]], slowdown: float) -> None:
    """With linear costs, nothing is approximated."""
    check(SMALL, arrivals_of(asked), (Change(0.0, 0, slowdown),), 1e-6)


@given(asked)
@settings(max_examples=100)
def test_futures_with_measured_costs_are_within_one_percent(asked: list[tuple[float, int, int]]) -> None:
    check(NARROW, arrivals_of(asked), (), 0.01)
    check(H100, arrivals_of(asked), (), 0.01)


class Asking(Foreseeing):
    """An observer that calls `begins_later` with each of `after_s` when the last request comes."""

    def __init__(self, last: int, after_s: tuple[float, ...]) -> None:
        super().__init__(last)
        self.after_s = after_s
        self.later: list[bool] = []

    def place(self, arrival: Arrival, now_s: float) -> Placement:
        assert self.cluster
        if arrival.index == self.last:
            self.later = [begins_later(self.cluster, 0, one) for one in self.after_s]
        return Placement(0)


def asking(endpoint: Hardware, arrivals: list[Arrival], after_s: tuple[float, ...]) -> tuple[list[bool], float]:
    """Return the answers of `begins_later`, and the last request's TTFT in s."""
    observer = Asking(len(arrivals) - 1, after_s)
    observer.cluster = Cluster([endpoint], 16, observer)
    observer.cluster.run(arrivals)
    (last,) = (flight for flight in observer.flights if flight.arrival is arrivals[-1])
    return observer.later, last.ttft_ms / 1000


@given(asked, st.floats(0.001, 10))
@settings(max_examples=150)
def test_begins_later_is_never_wrong(asked: list[tuple[float, int, int]], after_s: float) -> None:
    (later,), waited_s = asking(SMALL, arrivals_of(asked), (after_s,))
    assert not later or waited_s > after_s


@pytest.mark.parametrize("endpoint", [NARROW, H100])
def test_begins_later_recognises_a_long_queue(endpoint: Hardware) -> None:
    arrivals = arrivals_of([(0.0, 2000, 20)] * 60)
    _, waited_s = asking(endpoint, arrivals, (1.0,))
    later, _ = asking(endpoint, arrivals, (waited_s / 3, waited_s))
    assert later == [True, False]


@pytest.mark.parametrize("name", ["h100-llama-3.1-8b", "l40s-llama-3.1-8b", "fast"])
def test_decodes_ms_equals_the_cost_of_single_steps(name: str) -> None:
    cost = hardware(name).cost
    decodes = np.array([1, 7, 100, hardware(name).max_num_seqs])
    tokens = np.array([128.0, 7 * 4000.0, 100 * 333.0, 100_000.0])
    wanted = [cost.dense_ms(d) + cost.decode_attention_ms(d, int(kv)) for d, kv in zip(decodes, tokens, strict=True)]
    np.testing.assert_allclose(cost.decodes_ms(decodes, tokens), wanted)
