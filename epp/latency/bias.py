"""How far predictions of each endpoint lately were off, between one generation of models and the next.

An endpoint that slows down is told by its recent observations long before models are fitted to it. What is kept is an
exponentially weighted mean of log(observed / predicted), since errors of latencies multiply; it is shrunk towards none
by how little was seen, and by how long ago.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from epp.scheduling.snapshot import Floats, Indices, Predictions

TTFT, TPOT = 0, 1
_TARGETS = 2


class BiasCorrection:
    """State over endpoint slots, for both targets; reads no clock, times are in seconds of any monotonic one.

    Of an endpoint, with weights w = exp(-age / memory_s) of its residuals r = log(observed / predicted), the factor is
    exp(sum(w r) / (sum(w) + prior)): the mean of a Gaussian whose prior at 0 counts as `prior` observations (Bishop,
    Pattern Recognition and Machine Learning, 2.3.6). With age all weights go to 0, and so does the correction.

    Residuals and factors are bounded, by `largest`, since one response that hung says little of the next.

    `usual` are the residuals' means, of TTFT and TPOT, where nothing is wrong: 0 for a median or a mean of logarithms,
    below 0 for an upper quantile, which would otherwise be corrected down to the middle.
    """

    def __init__(
        self,
        slots: int,
        memory_s: float = 20.0,
        prior: float = 5.0,
        largest: float = 4.0,
        usual: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        if memory_s <= 0 or prior <= 0 or largest <= 1:
            raise ValueError("memory_s and prior must be positive, largest must be above 1")
        self._usual: Final = usual
        self._memory_s: Final = memory_s
        self._prior: Final = prior
        self._bound: Final = float(np.log(largest))
        self._sums: Floats = np.zeros((_TARGETS, slots))
        self._weights: Floats = np.zeros((_TARGETS, slots))
        self._seen_s: Floats = np.zeros((_TARGETS, slots))

    def observe(self, slot: int, target: int, predicted_ms: float, observed_ms: float, now_s: float) -> None:
        """What the models said, before any correction, and what it came to. Both must be positive to say anything."""
        if not (0 < predicted_ms < np.inf and 0 < observed_ms < np.inf):
            return
        residual = float(np.log(observed_ms / predicted_ms)) - self._usual[target]
        residual = min(max(residual, -self._bound), self._bound)
        kept = self._kept(target, slot, now_s)
        self._sums[target, slot] = float(self._sums[target, slot]) * kept + residual
        self._weights[target, slot] = float(self._weights[target, slot]) * kept + 1.0
        self._seen_s[target, slot] = max(now_s, float(self._seen_s[target, slot]))

    def factors(self, slots: Indices | Sequence[int], now_s: float) -> Floats:
        """What to multiply predictions of TTFT and TPOT by, [2, slots]; 1 where nothing is known."""
        kept = np.exp(-np.maximum(now_s - self._seen_s[:, slots], 0.0) / self._memory_s)
        logarithms = self._sums[:, slots] * kept / (self._weights[:, slots] * kept + self._prior)
        factors: Floats = np.exp(logarithms)
        return factors

    def corrected(self, predictions: Predictions, slots: Indices, now_s: float) -> Predictions:
        """The same predictions, of the candidates at `slots`, corrected."""
        ttft, tpot = self.factors(slots, now_s)
        return Predictions(
            predictions.ttft_ms * ttft, predictions.tpot_ms * tpot, predictions.generation, predictions.source
        )

    def forget(self, slots: slice | int = slice(None)) -> None:
        """What is known of a slot, when another endpoint gets it; of all of them by default."""
        self._sums[:, slots] = self._weights[:, slots] = 0.0

    def _kept(self, target: int, slot: int, now_s: float) -> float:
        age_s = max(now_s - float(self._seen_s[target, slot]), 0.0)
        return float(np.exp(-age_s / self._memory_s))
