"""A policy that knows the length of every answer and each engine's next steps: a bound of what prediction can gain.

With expected lengths instead, it is the bound of what a router could know. No router can gain the difference between
the two.

The policy doesn't know later arrivals, so it is no bound of scheduling. The constants below are its expectations of
them. They were chosen by attainment over the workloads, at loads at which policies differ.
"""

import random
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from lab.evaluation.policies.foresight import (
    REPLACED,
    EndpointLoad,
    Floats,
    Future,
    Ints,
    Prompt,
    Reading,
    begin_reading,
    begins_later,
    foresee,
    load_of,
    prompt_of,
    read_all_but_last,
    read_prompts,
)
from lab.evaluation.policies.lengths import Lengths, known_length
from simulator.arrival import Arrival
from simulator.cluster import Cluster, Flight, Placement

# Spreads of latencies by later arrivals, as standard deviations of the logarithm. That of TPOT is for an answer that
# hasn't begun; generated tokens are certain. TTFT has a small spread, because queues are served in order.
_TPOT_SPREAD, _TTFT_SPREAD = 0.3, 0.1
_LEAST_SPREAD = 0.01
# Bonus for the fullest endpoint, relative to an empty one, in requests that meet their objectives. It packs undemanding
# requests together, so that an endpoint stays free for demanding ones.
_PACKING = 0.02
# A prompt that would begin later than this multiple of its TTFT objective counts as lost, and nothing else is computed.
# Under overload, many prompts are lost, in queues that are too long to compute.
_LOST = 1.5
# Columns of `Oracle._facts`.
_ARRIVED, _TTFT, _TPOT_MS, _FIRST = range(4)


@dataclass(frozen=True, slots=True)
class _Outlook:
    """An endpoint's future without the new request, cached until something happens to the endpoint.

    `reading` ends before the step that reads the `last` prompts. `value` is the worth of the whole future.
    """

    key: tuple[int, int, float, int]
    load: EndpointLoad
    steps_begun: int
    reading: Reading
    last: tuple[Prompt, ...]
    value: float


class Oracle:
    """Places each request where most requests, the new one and the present ones, will meet their objectives.

    With `sheds`, it sheds a request that gains nothing on any endpoint.
    """

    gain_if_lost = 0.0
    """The gain of a request on an endpoint where it counts as lost."""

    def __init__(self, seed: int, lengths: Lengths = known_length, *, sheds: bool = False) -> None:
        self._lengths, self._sheds = lengths, sheds
        self._cluster: Cluster | None = None
        self._outlooks: list[_Outlook | None] = []
        self._rng = random.Random(f"{seed}/oracle")
        # By request: arrival in s, TTFT objective in s, TPOT objective in ms, time of the first token in s.
        self._facts: Floats = np.full((4096, 4), np.nan)

    def attach(self, cluster: Cluster) -> None:
        """Set the cluster to observe, before the first request."""
        self._cluster = cluster
        self._outlooks = [None] * len(cluster.engines)

    def place(self, arrival: Arrival, now_s: float) -> Placement | None:
        assert self._cluster
        self._note(arrival)
        found = [self._with(self._cluster, endpoint, arrival, now_s) for endpoint in range(len(self._outlooks))]
        if self._sheds and max(gain for gain, _ in found) <= 0:
            return None
        fullest = max(decodes for _, decodes in found)
        scores = [gain + _PACKING * decodes / fullest + 1e-9 * self._rng.random() for gain, decodes in found]
        return Placement(scores.index(max(scores)))

    def first_token(self, flight: Flight, now_s: float) -> None:
        self._facts[flight.arrival.index, _FIRST] = now_s

    def marked(self, flight: Flight, tokens: int, now_s: float) -> None: ...

    def ended(self, flight: Flight, now_s: float) -> None: ...

    def arrived_s(self, requests: Ints) -> Floats:
        arrived_s: Floats = self._facts[requests, _ARRIVED]
        return arrived_s

    def _note(self, arrival: Arrival) -> None:
        while arrival.index >= len(self._facts):
            self._facts = np.concatenate((self._facts, np.full_like(self._facts, np.nan)))
        self._facts[arrival.index] = (arrival.arrival_s, arrival.slo_ttft_ms / 1000, arrival.slo_tpot_ms, np.nan)

    def _with(self, cluster: Cluster, endpoint: int, arrival: Arrival, now_s: float) -> tuple[float, int]:
        """Return the gain in the endpoint's value by this request, and the number of sequences that decode with it."""
        engine = cluster.engines[endpoint]
        if begins_later(cluster, endpoint, _LOST * arrival.slo_ttft_ms / 1000):
            return self.gain_if_lost, min(engine.running + engine.waiting, engine.hardware.max_num_seqs)
        outlook = self._outlook(cluster, endpoint, now_s)
        cached = engine.cached_tokens(arrival.hashes, arrival.prompt_tokens)
        if outlook.last:
            load, reading = outlook.load, outlook.reading.copy()
        else:
            begun, left_s = cluster.steps_begun(endpoint, now_s)
            load = outlook.load.later(begun - outlook.steps_begun, now_s + left_s)
            reading = begin_reading(load)
        read_prompts(load, reading, [*outlook.last, prompt_of(arrival, cached, self._lengths)])
        return self.value(load, foresee(load, reading, REPLACED)) - outlook.value, max(reading.decodes, 1)

    def _outlook(self, cluster: Cluster, endpoint: int, now_s: float) -> _Outlook:
        begun, _ = cluster.steps_begun(endpoint, now_s)
        # Expected lengths change with every token; known lengths don't.
        expected_at = 0 if self._lengths is known_length else begun
        key = (cluster.version(endpoint), cluster.engines[endpoint].waiting, cluster.slowdown(endpoint), expected_at)
        known = self._outlooks[endpoint]
        if known is not None and known.key == key:
            return known
        load = load_of(cluster, endpoint, now_s, self._lengths)
        reading = begin_reading(load)
        last = read_all_but_last(load, reading)
        whole = reading.copy()
        read_prompts(load, whole, last)
        value = self.value(load, foresee(load, whole, REPLACED))
        found = self._outlooks[endpoint] = _Outlook(key, load, begun, reading, last, value)
        return found

    def value(self, load: EndpointLoad, future: Future) -> float:
        """Return the value of a future: the expected number of requests that meet both objectives."""
        facts = self._facts[future.requests]
        known_s = facts[:, _FIRST]
        is_known = ~np.isnan(known_s)
        foreseen_s = np.where(np.isnan(future.first_s), load.at_s, future.first_s)
        first_s = np.where(is_known, known_s, foreseen_s)
        ttft = (first_s - facts[:, _ARRIVED]) / facts[:, _TTFT]
        took_s = np.maximum(future.ended_s - first_s, 1e-9)
        span_s = np.maximum(future.lengths - 1, 1) * facts[:, _TPOT_MS] / 1000
        to_come = np.clip((future.ended_s - load.at_s) / took_s, _LEAST_SPREAD / _TPOT_SPREAD, 1.0)
        met_ttft = np.where(is_known, ttft <= 1, _met(ttft, _TTFT_SPREAD))
        return float(_met(took_s / span_s, _TPOT_SPREAD * to_come) @ met_ttft)


def _met(ratio: Floats, spread: Floats | float) -> Floats:
    """Return the chance that a latency won't exceed its objective, given the predicted ratio of the two."""
    chance: Floats = ndtr(-np.log(np.maximum(ratio, 1e-9)) / spread)
    return chance
