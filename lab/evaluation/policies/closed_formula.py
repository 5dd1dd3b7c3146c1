"""A scorer without learning: it estimates the time to first token by a closed formula."""

import numpy as np

from epp.scheduling.plugin import Scorer, plugin
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Floats, Snapshot


@plugin("closed-formula-scorer")
class ClosedFormulaScorer(Scorer, frozen=True):
    """Prefers the smallest (queued prefill tokens + own uncached tokens) x (the endpoint's measured ms per token)."""

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        rates = candidates.recent_prefill_ms_per_token
        known = rates[~np.isnan(rates)]
        # An endpoint without measurements counts as the fastest one. So it gets requests, and is soon measured.
        rates = np.where(np.isnan(rates), known.min() if len(known) else 1.0, rates)
        uncached = request.input_tokens * (1.0 - candidates.prefix_score)
        # Scores are clipped to [0, 1]. This formula keeps them inside, so that different times have different scores.
        return 1 / (1 + (candidates.prefill_tokens + uncached) * rates)
