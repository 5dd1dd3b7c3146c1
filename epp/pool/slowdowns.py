"""By how much endpoints are slower than the latency models know, found from the latest responses there.

A machine at half its speed does all that it did before, in twice the time. So its latencies are what models predict for
an endpoint whose own times are half as long, times two: nothing has to be learnt anew but that factor. Models come to
know of it as well, but late, since few requests are sent to an endpoint that is slow.

A load that they haven't seen makes models wrong too, but hardly by the same factor for both latencies: one is believed
only once TTFT and TPOT both ask for it, beside those of the other endpoints.
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

# Of each latency the latest observations on an endpoint; the oldest of them, and the fewest that say anything.
_OBSERVATIONS, _FRESH_S, _FEWEST = 24, 20.0, 4
# An endpoint is looked at once its recent TPOT is off by this factor, or half of it; so many at once, beside others
# whose latest few observations tell what is usual.
_SUSPICIOUS_BIAS = 1.1
_SUSPECTS, _OTHERS, _OF_OTHERS = 8, 8, 8
# Logarithms: by how much both latencies are off at least before a factor is believed, and the least one that goes on to
# be; and how much of what is still off is taken over each time, mostly by TPOT, which varies less.
_OFF, _LEAST, _SHARE, _TPOT_SHARE = 0.2, 0.15, 0.7, 0.7
_MOST = 5.0
# A factor is given up when predictions without it are better than that.
_WORSE = 1.5


class Evidence(NamedTuple):
    """Observed latencies in ms and what was known when they began: `features` is [features, observations]."""

    slots: Indices
    features: FeatureColumns
    is_tpot: Bools
    observed_ms: Floats
    slowdown: Floats
    """What was believed of the endpoint when models were asked."""


@dataclass(slots=True)
class _Observation:
    features: FeatureColumns
    observed_ms: float
    at_s: float


_Latest = tuple[deque[_Observation], deque[_Observation]]
"""TTFTs and TPOTs."""


def _none() -> _Latest:
    return deque(maxlen=_OBSERVATIONS), deque(maxlen=_OBSERVATIONS)


@dataclass(slots=True)
class Slowdowns:
    """`factors`, over slots, are what an endpoint's predicted latencies are to be multiplied by.

    `on_turn` is told of a slot when it is first believed that there is a factor, and when there is none any more.
    """

    clock: Callable[[], float]
    on_turn: Callable[[int, float], None] = lambda slot, factor: None
    factors: Floats = field(default_factory=lambda: np.ones(CAPACITY))
    _observed: defaultdict[int, _Latest] = field(default_factory=lambda: defaultdict(_none))
    _turn: int = 0

    def observed(
        self, slot: int, features: FeatureColumns, *, ttft_ms: float | None = None, tpot_ms: float | None = None
    ) -> None:
        """Takes note of a latency and of the features [features, 1] of the moment when it began."""
        for kind, observed_ms in enumerate((ttft_ms, tpot_ms)):
            if observed_ms:
                self._observed[slot][kind].append(_Observation(features, observed_ms, self.clock()))

    def forget(self, slot: int) -> None:
        """The endpoint has left."""
        self._observed.pop(slot, None)
        self.factors[slot] = 1.0

    def evidence(self, slots: Indices, tpot_bias: Floats) -> Evidence | None:
        """What models are to be asked about, with and without the factors; None while no endpoint is suspected."""
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
        """From the predictions for each observation, without and with the factor that was believed."""
        off = np.log(evidence.observed_ms / np.maximum((plain_ms, slowed_ms), 1e-3))
        rows = {
            slot: [(evidence.slots == slot) & (evidence.is_tpot == is_tpot) for is_tpot in (False, True)]
            for slot in np.unique(evidence.slots).tolist()
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
        """The endpoint's, of both kinds. One of which too little is known counts as any other, lest it stay avoided."""
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
    """The median of what endpoints are off by, as a logarithm; of two in the middle that which is nearer to none."""
    ordered = np.sort(off)
    return float(min(ordered[(len(off) - 1) // 2], ordered[len(off) // 2], key=abs))


def _factor(believed: float, plain: list[Floats], slowed: list[Floats]) -> float:
    """What is to be believed from now on, by how far off TTFTs and TPOTs are: without a factor, and with it."""
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
