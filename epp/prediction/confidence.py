"""Whether predictions may decide, by how near they were to the latest observed latencies.

Models are wrong for some seconds after a change that they know nothing of: a new version of the model server, faster
hardware, a store of another pool. Decisions by such predictions are worse than decisions by load alone.
"""

import logging
import math
from collections import deque
from statistics import median

logger = logging.getLogger("headroom.epp.latency")

# The observations of each latency that count, and the fewest that lose or regain confidence.
_LATEST, _FEWEST = 40, 10
# Confidence is lost beyond this factor between predicted median and observation, and regained below the other.
_LOST_FACTOR, _REGAINED_FACTOR = 2.0, 1.4
# Weight of a new observation in the usual latency.
_USUAL_WEIGHT = 0.05


class Confidence:
    """Compares predicted medians with what was observed. `may_decide` begins as true.

    Confidence is lost when half of the latest observations of TTFT or of TPOT are further from their predictions than
    a factor of 2, and further than from the usual latency: some latencies can't be predicted any better.
    """

    def __init__(self) -> None:
        self.may_decide = True
        self._errors = {"TTFT": _Errors(), "TPOT": _Errors()}

    def ttft_observed(self, predicted_ms: float, observed_ms: float) -> None:
        self._observed("TTFT", predicted_ms, observed_ms)

    def tpot_observed(self, predicted_ms: float, observed_ms: float) -> None:
        self._observed("TPOT", predicted_ms, observed_ms)

    def _observed(self, latency: str, predicted_ms: float, observed_ms: float) -> None:
        if not (0 < predicted_ms < math.inf and 0 < observed_ms < math.inf):
            return
        self._errors[latency].add(math.log(predicted_ms), math.log(observed_ms))
        if self.may_decide:
            if self._errors[latency].exceed(_LOST_FACTOR):
                self._change(False, f"{latency} was off by a factor of {self._errors[latency].factor:.1f}")
        elif not any(errors.exceed(_REGAINED_FACTOR) for errors in self._errors.values()):
            self._change(True, f"{latency} is off by a factor of {self._errors[latency].factor:.1f}")

    def _change(self, may_decide: bool, reason: str) -> None:
        self.may_decide = may_decide
        if may_decide:
            logger.info("predictions decide again: %s", reason)
        else:
            logger.warning("predictions don't decide until they are better: %s", reason)


class _Errors:
    """The latest errors of one latency, as logarithms of factors: of the predictions, and of the usual latency."""

    def __init__(self) -> None:
        self._predicted: deque[float] = deque(maxlen=_LATEST)
        self._usual: deque[float] = deque(maxlen=_LATEST)
        self._usual_latency: float | None = None

    def add(self, predicted: float, observed: float) -> None:
        before = observed if self._usual_latency is None else self._usual_latency
        self._predicted.append(abs(predicted - observed))
        self._usual.append(abs(before - observed))
        self._usual_latency = before + _USUAL_WEIGHT * (observed - before)

    @property
    def factor(self) -> float:
        """The factor that half of the predictions were off by."""
        return math.exp(median(self._predicted))

    def exceed(self, factor: float) -> bool:
        if len(self._predicted) < _FEWEST:
            return False
        return median(self._predicted) > max(math.log(factor), median(self._usual))
