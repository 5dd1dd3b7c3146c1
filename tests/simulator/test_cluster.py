"""The pool in virtual time, compared with engines that run one step at a time."""

import dataclasses
import math
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.arrival import Arrival, Change
from simulator.cluster import Cluster, Flight, Placement
from simulator.engine import Engine
from simulator.hardware import PRESETS
from simulator.sequence import Sequence

SMALL = dataclasses.replace(PRESETS["fast"], num_blocks=60, max_num_seqs=4, max_num_batched_tokens=64)


class Watching:
    """An observer that places requests in turn and records their events."""

    def __init__(self, endpoints: int = 1, marks: tuple[int, ...] = (), shed: frozenset[int] = frozenset()) -> None:
        self.endpoints, self._marks, self._shed = endpoints, marks, shed
        self.ended_flights: list[Flight] = []
        self.seen: dict[int, list[int]] = defaultdict(list)

    def place(self, arrival: Arrival, now_s: float) -> Placement | None:
        assert now_s == arrival.arrival_s
        return None if arrival.index in self._shed else Placement(arrival.index % self.endpoints, self._marks)

    def first_token(self, flight: Flight, now_s: float) -> None:
        assert flight.first_token_s == now_s >= flight.arrival.arrival_s
        self.seen[flight.arrival.index].append(1)

    def marked(self, flight: Flight, tokens: int, now_s: float) -> None:
        self.seen[flight.arrival.index].append(tokens)

    def ended(self, flight: Flight, now_s: float) -> None:
        self.ended_flights.append(flight)


def arrival(index: int, at_s: float, prompt: int = 40, output: int = 10) -> Arrival:
    return Arrival(index, at_s, prompt, output, (), "normal", 1000.0, 100.0)


def replayed(arrivals: list[Arrival], observer: Watching, changes: tuple[Change, ...] = ()) -> list[Flight]:
    Cluster([SMALL] * observer.endpoints, 16, observer).run(arrivals, changes)
    return sorted(observer.ended_flights, key=lambda flight: flight.arrival.index)


def stepped(arrivals: list[Arrival], began: list[float] | None = None) -> dict[int, tuple[float, float]]:
    """Return the times of each request's first and last token, computed one step at a time.

    Arrivals join between two steps. The time at which each step begins is appended to `began`.
    """
    engine, now_s, pending = Engine(SMALL, 16), 0.0, list(arrivals)
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    while len(last) < len(arrivals):
        while pending and pending[0].arrival_s <= now_s:
            one = pending.pop(0)
            engine.submit(Sequence(one.index, one.hashes, one.prompt_tokens, one.output_tokens))
        step = engine.step()
        if step is None:
            now_s = pending[0].arrival_s
            continue
        if began is not None:
            began.append(now_s)
        now_s += step.duration_ms / 1000
        for index in step.produced:
            assert isinstance(index, int)
            first.setdefault(index, now_s)
        last |= {index: now_s for index in step.finished if isinstance(index, int)}
    return {index: (first[index], last[index]) for index in first}


class Looking(Watching):
    """An observer that calls `step_at` at each arrival to a busy endpoint, for now and for 1 ms earlier."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster([SMALL], 16, self)
        self.steps: dict[float, tuple[int, float]] = {}

    def place(self, arrival: Arrival, now_s: float) -> Placement | None:
        if self.cluster.engines[0].running:
            for at_s in (now_s, now_s - 0.001):
                self.steps[at_s] = self.cluster.step_at(0, at_s)
        return super().place(arrival, now_s)


gaps = st.lists(st.tuples(st.floats(0.001, 2.0), st.integers(1, 200), st.integers(1, 60)), min_size=1, max_size=20)


def from_gaps(asked: list[tuple[float, int, int]]) -> list[Arrival]:
    now_s, arrivals = 0.0, []
    for index, (gap_s, prompt, output) in enumerate(asked):
        now_s += gap_s
        arrivals.append(arrival(index, now_s, prompt, output))
    return arrivals


@given(gaps)
def test_planned_steps_end_at_the_same_times_as_single_steps(asked: list[tuple[float, int, int]]) -> None:
    arrivals = from_gaps(asked)
    expected = stepped(arrivals)
    for flight in replayed(arrivals, Watching()):
        times = (flight.first_token_s, flight.ended_s)
        assert times == pytest.approx(expected[flight.arrival.index], rel=1e-6)


@given(gaps)
def test_step_at_finds_the_step_of_a_moment(asked: list[tuple[float, int, int]]) -> None:
    arrivals, looking, every = from_gaps(asked), Looking(), list[float]()
    looking.cluster.run(arrivals)
    stepped(arrivals, every)
    for at_s, (step, began_s) in looking.steps.items():
        assert began_s == -math.inf or min(abs(one - began_s) for one in every) < 1e-4
        assert not [one for one in every if began_s + 1e-4 < one < at_s - 1e-4]
        assert began_s <= at_s + 1e-9
        assert step == sum(one < began_s + 1e-4 for one in every)


@given(gaps, st.integers(1, 3))
def test_marks_change_no_latency(asked: list[tuple[float, int, int]], endpoints: int) -> None:
    arrivals = from_gaps(asked)
    watching = Watching(endpoints, marks=(2, 8, 40))
    marked, plain = replayed(arrivals, watching), replayed(arrivals, Watching(endpoints))
    assert [f.ended_s for f in marked] == pytest.approx([f.ended_s for f in plain])
    for one in arrivals:
        assert watching.seen[one.index] == [1, *(mark for mark in (2, 8, 40) if mark < one.output_tokens)]


def test_a_shed_request_never_runs() -> None:
    observer = Watching(shed=frozenset({1}))
    shed = Cluster([SMALL], 16, observer).run([arrival(i, 0.1 * i) for i in range(3)])
    assert shed == 1
    assert [flight.arrival.index for flight in observer.ended_flights] == [0, 2]


def test_a_slowdown_multiplies_both_latencies() -> None:
    (usual,) = replayed([arrival(0, 5.0)], Watching())
    (slow,) = replayed([arrival(0, 5.0)], Watching(), (Change(1.0, 0, 2.0),))
    assert slow.ttft_ms == pytest.approx(2 * usual.ttft_ms)
    assert slow.tpot_ms == pytest.approx(2 * usual.tpot_ms)


def test_a_stalled_endpoint_continues_after_the_stall() -> None:
    changes = (Change(0.2, 0, 1e9), Change(10.2, 0, 1.0))
    (usual,), (stalled,) = (replayed([arrival(0, 0.0, output=40)], Watching(), c) for c in ((), changes))
    assert stalled.ended_s is not None
    assert usual.ended_s is not None
    assert stalled.ended_s == pytest.approx(usual.ended_s + 10.0, abs=0.1)


def test_ticks_come_in_order_with_other_events() -> None:
    observer, ticks = Watching(), []
    cluster = Cluster([SMALL], 16, observer)

    def tick(now_s: float) -> None:
        ticks.append((now_s, cluster.engines[0].waiting + cluster.engines[0].running))

    cluster.run([arrival(0, 0.12)], tick=tick, tick_s=0.05)
    assert [in_engine for at_s, in_engine in ticks if at_s < 0.12] == [0, 0, 0]
    assert all(in_engine == 1 for at_s, in_engine in ticks if at_s > 0.12)
    assert [at_s for at_s, _ in ticks] == pytest.approx([0.05 * i for i in range(len(ticks))])


def test_steps_begun_returns_the_rest_of_the_step_in_progress() -> None:
    observer = Watching()
    cluster = Cluster([SMALL], 16, observer)
    left: list[tuple[float, float]] = []
    cluster.run(
        [arrival(0, 0.0, 40, 1)], tick=lambda now_s: left.append((now_s, cluster.steps_begun(0, now_s)[1])), tick_s=0.01
    )
    (flight,) = observer.ended_flights
    assert flight.first_token_s is not None
    for now_s, left_s in left[1:]:
        assert now_s + left_s == pytest.approx(flight.first_token_s)


def test_the_host_hands_requests_to_the_engine_after_its_own_time() -> None:
    arrivals = [arrival(0, 0.0), arrival(1, 0.003)]
    hardware = dataclasses.replace(SMALL, request_ms=4.0, prompt_token_ms=0.1)
    delayed, prompt = Watching(), Watching()
    Cluster([hardware], 16, delayed).run(arrivals)
    Cluster([SMALL], 16, prompt).run([dataclasses.replace(one, arrival_s=one.arrival_s + 0.008) for one in arrivals])
    ends = [sorted((flight.first_token_s, flight.ended_s) for flight in one.ended_flights) for one in (delayed, prompt)]
    assert ends[0] == ends[1]
    assert delayed.ended_flights[0].ttft_ms == pytest.approx(prompt.ended_flights[0].ttft_ms + 8.0)
