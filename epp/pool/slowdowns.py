"""Find endpoints that are slower than the latency models know, and by what factor, from their latest responses.

A machine at half its speed does the same work in twice the time. So its latencies are twice what the models predict
for an endpoint whose observed times are half as long. Only this factor has to be learnt. The models learn the slowness
too, but late, since few requests are sent to a slow endpoint.

Unfamiliar load makes the models wrong too, but hardly by the same factor for both latencies. So a factor is believed
only when TTFT and TPOT both show it, relative to the other endpoints.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np

from epp.pool.state import CAPACITY
from epp.prediction.features import FeatureColumns
from epp.scheduling.snapshot import Bools, Floats, Indices

# Keep this many observations of each latency per endpoint.
_OBSERVATIONS = 24
# Use observations of at most this age, in seconds.
_FRESH_S = 20.0
# Fewer fresh observations of a latency than this prove nothing.
_FEWEST = 4
# Suspect an endpoint whose recent TPOT is off by more than this factor, in either direction.
_SUSPICIOUS_BIAS = 1.1
# Check 8 suspected endpoints and 8 controls per round, with the latest 8 observations of each control.
_SUSPECTS, _OTHERS, _OF_OTHERS = 8, 8, 8
# Believe a factor once both latencies are off by more than this logarithm (a factor of 1.22).
_OFF = 0.2
# Keep a factor while its logarithm is greater than this (a factor of 1.16).
_LEAST = 0.15
# Share of the remaining error that is added to the factor each round, on a logarithmic scale.
_SHARE = 0.7
# Weight of TPOT in the remaining error; TTFT has the rest, since TPOT varies less.
_TPOT_SHARE = 0.7
# Greatest factor; the least is its inverse.
_MOST = 5.0
# Give up a factor when the error with it is more than this many times the error without it.
_WORSE = 1.5


class Evidence(NamedTuple):
    """Observed latencies in ms, and the features when each began, of shape [features, observations]."""

    slots: Indices
    features: FeatureColumns
    is_tpot: Bools
    observed_ms: Floats
    slowdown: Floats
    """The factor that was believed when the models were asked."""


@dataclass(slots=True)
class _Observation:
    features: FeatureColumns
    observed_ms: float
    at_s: float


_Latest = tuple[deque[_Observation], deque[_Observation]]
"""The latest TTFTs and the latest TPOTs."""


def _none() -> _Latest:
    return deque(maxlen=_OBSERVATIONS), deque(maxlen=_OBSERVATIONS)


@dataclass(slots=True)
class Slowdowns:
    """The factors, over slots, by which an endpoint's predicted latencies are to be multiplied.

    `on_turn` is called with the slot and the factor when a factor is first believed, and when it is given up.
    """

    clock: Callable[[], float]
    on_turn: Callable[[int, float], None] = lambda slot, factor: None
    factors: Floats = field(default_factory=lambda: np.ones(CAPACITY))
    _observed: defaultdict[int, _Latest] = field(default_factory=lambda: defaultdict(_none))
    _turn: int = 0

    def observed(
        self, slot: int, features: FeatureColumns, *, ttft_ms: float | None = None, tpot_ms: float | None = None
    ) -> None:
        """Record a latency in ms with the features [features, 1] of the moment when it began."""
        for kind, observed_ms in enumerate((ttft_ms, tpot_ms)):
            if observed_ms:
                self._observed[slot][kind].append(_Observation(features, observed_ms, self.clock()))

    def forget(self, slot: int) -> None:
        """Forget the endpoint in the slot, which has left the pool."""
        self._observed.pop(slot, None)
        self.factors[slot] = 1.0

    def evidence(self, slots: Indices, tpot_bias: Floats) -> Evidence | None:
        """Return observations to predict with and without the factors; None while no endpoint is suspected."""
        suspected = (np.maximum(tpot_bias, 1 / tpot_bias) > _SUSPICIOUS_BIAS) | (self.factors[slots] != 1)
        if not suspected.any():
            return None
        self._turn += 1
        chosen: list[tuple[int, _Observation, bool]] = []
        for group, most, latest in ((suspected, _SUSPECTS, _OBSERVATIONS), (~suspected, _OTHERS, _OF_OTHERS)):
            among = slots[group].tolist()
            start = self._turn * most % max(len(among), 1)
            for slot in islice(cycle(among), start, start + min(most, len(among))):
                chosen += self._fresh(slot, latest)
        if not chosen:
            return None
        of_slots = np.array([slot for slot, *_ in chosen])
        return Evidence(
            slots=of_slots,
            features=np.concatenate([one.features for _, one, _ in chosen], axis=1),
            is_tpot=np.array([is_tpot for *_, is_tpot in chosen]),
            observed_ms=np.array([one.observed_ms for _, one, _ in chosen]),
            slowdown=self.factors[of_slots],
        )

    def learn(self, evidence: Evidence, plain_ms: Floats, slowed_ms: Floats) -> None:
        """Learn from the predictions for each observation, without and with the factor that was believed."""
        off = np.log(evidence.observed_ms / np.maximum((plain_ms, slowed_ms), 1e-3))
        rows = {
            slot: [(evidence.slots == slot) & (evidence.is_tpot == is_tpot) for is_tpot in (False, True)]
            for slot in sorted(set(evidence.slots.tolist()))
        }
        ttft, tpot = (
            median_nearest_none(np.array([np.median(off[0, kinds[kind]]) for kinds in rows.values()]))
            for kind in (0, 1)
        )
        off -= np.where(evidence.is_tpot, tpot, ttft)
        for slot, kinds in rows.items():
            believed = float(self.factors[slot])
            self._believe(slot, _factor(believed, *([of[kind] for kind in kinds] for of in off)))

    def _fresh(self, slot: int, latest: int) -> list[tuple[int, _Observation, bool]]:
        """Return the endpoint's fresh observations of both latencies.

        With too few of them, reset the factor to 1, so that the endpoint isn't avoided for ever.
        """
        begin_s = self.clock() - _FRESH_S
        kinds = self._observed[slot]
        found = [
            (slot, one, bool(is_tpot))
            for is_tpot, kind in enumerate(kinds)
            for one in list(kind)[-latest:]
            if one.at_s >= begin_s
        ]
        if min(sum(is_tpot == kind for *_, is_tpot in found) for kind in (False, True)) < _FEWEST:
            self._believe(slot, 1.0)
            return []
        return found

    def _believe(self, slot: int, factor: float) -> None:
        turned = (self.factors[slot] == 1) != (factor == 1)
        self.factors[slot] = factor
        if turned:
            self.on_turn(slot, factor)


def median_nearest_none(off: Floats) -> float:
    """Return the median of the endpoints' errors, which are logarithms; of two middle values, the one nearer to 0."""
    ordered = np.sort(off)
    return float(min(ordered[(len(off) - 1) // 2], ordered[len(off) // 2], key=abs))


def _factor(believed: float, plain: list[Floats], slowed: list[Floats]) -> float:
    """Return the next factor, from the errors of TTFT and TPOT without and with the present factor."""
    if believed == 1:
        off = [float(np.median(kind)) for kind in plain]
        return _bounded_factor(float(np.mean(off))) if min(off) > _OFF or max(off) < -_OFF else 1.0
    if _error(slowed) > _WORSE * _error(plain):
        return 1.0
    ttft, tpot = (float(np.median(kind)) for kind in slowed)
    off_still = _TPOT_SHARE * tpot + (1 - _TPOT_SHARE) * ttft
    logarithm = np.log(believed) + _SHARE * off_still
    return _bounded_factor(logarithm) if abs(logarithm) > _LEAST else 1.0


def _bounded_factor(logarithm: float) -> float:
    return float(np.clip(np.exp(logarithm), 1 / _MOST, _MOST))


def _error(kinds: list[Floats]) -> float:
    return float(sum(np.median(np.abs(kind)) for kind in kinds))
