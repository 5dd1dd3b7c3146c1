"""What reading prompts costs on each endpoint, asked of the latency models now and then beside a decision's own rows.

Two made-up requests for each candidate, alike but that one finds its whole prompt cached: what the other takes longer
to its first token is the price of its prompt, on that endpoint under its present load.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from epp.features import FeatureColumns
from epp.pool.pool import Pool
from epp.scheduling.snapshot import Floats, Indices, Predictions, Snapshot
from model_store import ROW_NAMES

_EVERY_S = 1.0
# A predictor takes some 10,000 rows at once.
_MOST_CANDIDATES = 3_000
_PROMPT_TOKENS = 2048
_LENGTH, _PREFIX = ROW_NAMES.index("input_token_length"), ROW_NAMES.index("prefix_cache_score")
# Less than any accelerator takes: models of few samples see no difference, or one to the wrong side.
_LEAST_MS_PER_TOKEN = 1e-4


@dataclass(slots=True)
class Costs:
    """Tells the pool what it has learnt."""

    pool: Pool
    clock: Callable[[], float] = time.monotonic
    _asked_at_s: float = field(default=-np.inf, init=False)

    def is_due(self, candidates: int) -> bool:
        """Whether the next rows should carry the question; says so once for each time."""
        now_s = self.clock()
        if now_s - self._asked_at_s < _EVERY_S or candidates > _MOST_CANDIDATES:
            return False
        self._asked_at_s = now_s
        return True

    def attached(self, pool: Snapshot, predictions: Predictions, *, asked: bool) -> Snapshot:
        """The candidates with their predictions and what is in flight there; `asked`: these answer the question too."""
        if asked:
            predictions = self.take(pool.slots, predictions)
        return pool.with_predictions(predictions, self.pool.tpot_slos(pool.slots))

    def take(self, slots: Indices, predictions: Predictions) -> Predictions:
        """Learns from the answer to `with_question` of as many slots, and returns the part of the decision itself."""
        candidates = len(slots)
        own = predictions.at(slice(0, candidates))
        ttft_ms = _middle(predictions.ttft_ms, predictions.ttft_median_ms)
        tpot_ms = _middle(own.tpot_ms, own.tpot_median_ms)
        uncached_ms, cached_ms = ttft_ms[candidates:].reshape(2, candidates)
        per_token_ms = np.maximum((uncached_ms - cached_ms) / _PROMPT_TOKENS, _LEAST_MS_PER_TOKEN)
        self.pool.learn_costs(slots, per_token_ms, tpot_ms)
        return own


def with_question(columns: FeatureColumns) -> FeatureColumns:
    """[features, 3 x candidates]: the decision's own rows, and the two that ask for the price of a prompt."""
    uncached = columns.copy()
    uncached[_LENGTH], uncached[_PREFIX] = _PROMPT_TOKENS, 0.0
    cached = uncached.copy()
    cached[_PREFIX] = 1.0
    return np.concatenate([columns, uncached, cached], axis=1)


def _middle(value_ms: Floats, median_ms: Floats | None) -> Floats:
    return value_ms if median_ms is None else median_ms
