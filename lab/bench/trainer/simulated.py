"""Samples as a picker observes them, from a public trace replayed in virtual time on simulated engines."""

import heapq
import itertools
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from epp.prediction.features import feature_columns
from epp.request.stretches import Pace
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Endpoint
from simulator.engine import Engine
from simulator.hardware import PRESETS
from simulator.plan import Step
from simulator.prompt import block_hashes
from simulator.sequence import Sequence
from simulator.trace import cap_lengths, load_trace, scale_rate
from simulator.workload import PlannedRequest, plan
from trainer.window import Rows, TargetData
from trainer.wire import Matrix

_KINDS = ("fast", "fast", "slow", "slow")
_LONGEST_PROMPT, _LONGEST_ANSWER = 2_000, 120
# One of this number of samples is held out.
_HELD_OUT = 5


@dataclass(slots=True)
class _Flight:
    planned: PlannedRequest
    endpoint: int
    ticket: Any
    features: Matrix
    sent_s: float
    first_token_s: float = 0.0
    pace: Pace | None = None


class Replay:
    """A replay with random placement, so that all situations occur. Features are those at the moment of dispatch."""

    def __init__(self, requests_per_s: float, seed: int) -> None:
        trace = cap_lengths(load_trace(), _LONGEST_PROMPT, _LONGEST_ANSWER)
        self._planned = plan(scale_rate(trace, requests_per_s), seed=seed)
        self._rng = np.random.default_rng(seed)
        self._now_s = 0.0
        self._pool = Pool(PrefixIndex(31_250), 1e9, clock=lambda: self._now_s)
        self._pool.replace_endpoints([Endpoint(f"{k}-{i}", f"10.0.0.{i}:1") for i, k in enumerate(_KINDS)])
        self._engines = [Engine(PRESETS[kind]) for kind in _KINDS]
        self._events: list[tuple[float, int, Any]] = []
        self._order = itertools.count()
        self._busy = [False] * len(_KINDS)
        self._flights: dict[Hashable, _Flight] = {}
        self._samples: dict[str, list[tuple[Matrix, float]]] = {"ttft": [], "tpot": []}

    def run(self) -> dict[str, TargetData]:
        """Run the replay, and return all samples of both targets. One in five is held out."""
        for planned in self._planned:
            self._at(planned.arrival_s, planned)
        while self._events:
            now_s, _, event = heapq.heappop(self._events)
            self._now_s = now_s
            if isinstance(event, PlannedRequest):
                self._dispatch(event, now_s)
            else:
                index, step = event
                self._stepped(index, step, now_s)
        return {name: _data(samples) for name, samples in self._samples.items()}

    def _at(self, time_s: float, event: Any) -> None:
        heapq.heappush(self._events, (time_s, next(self._order), event))

    def _dispatch(self, planned: PlannedRequest, now_s: float) -> None:
        for index, engine in enumerate(self._engines):
            self._pool.record_metrics(index, engine.waiting, engine.running, engine.kv_usage)
        request = Request(planned.id, "model", input_tokens=planned.prompt_tokens)
        chosen = int(self._rng.integers(len(self._engines)))
        features = feature_columns(request, self._pool.snapshot(request))[:, chosen].copy()
        ticket = self._pool.dispatch(chosen, request, 0.0)
        self._flights[planned.id] = _Flight(planned, chosen, ticket, features, now_s)
        hashes = block_hashes(planned.prompt.encode(), 16)
        self._engines[chosen].submit(Sequence(planned.id, hashes, planned.prompt_tokens, planned.output_tokens))
        self._kick(chosen, now_s)

    def _kick(self, index: int, now_s: float) -> None:
        if not self._busy[index] and (step := self._engines[index].step()):
            self._busy[index] = True
            self._at(now_s + step.duration_ms / 1000, (index, step))

    def _stepped(self, index: int, step: Step, now_s: float) -> None:
        self._busy[index] = False
        for name in step.produced:
            flight = self._flights[name]
            if flight.pace:
                self._pool.saw_tokens(flight.endpoint, 1)
                flight.pace.events += 1
                if flight.pace.is_due:
                    self._pool.record_gap(flight.endpoint, *flight.pace.take(now_s))
            else:
                flight.pace = Pace(now_s)
                flight.first_token_s = now_s
                ttft_ms = (now_s - flight.sent_s) * 1000
                self._pool.record_ttft(flight.ticket, ttft_ms)
                self._pool.first_token(flight.ticket)
                self._samples["ttft"].append((flight.features, ttft_ms))
        for name in step.finished:
            flight = self._flights.pop(name)
            self._pool.finish(flight.ticket)
            gaps = flight.planned.output_tokens - 1
            if gaps > 0:
                self._samples["tpot"].append((flight.features, (now_s - flight.first_token_s) * 1000 / gaps))
        self._kick(index, now_s)


def _data(samples: list[tuple[Matrix, float]]) -> TargetData:
    x = np.array([features for features, _ in samples], dtype=np.float32)
    y = np.array([latency for _, latency in samples], dtype=np.float32)
    every = Rows(x, y, np.arange(len(y)))
    held_out = every.arrival % _HELD_OUT == 0
    return TargetData(every.part(~held_out), every.part(held_out))
