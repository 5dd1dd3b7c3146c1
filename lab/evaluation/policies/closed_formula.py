"""A scorer without any learning: the time to first token by a formula that everyone can write down."""

import numpy as np

from epp.scheduling.plugin import Scorer, plugin
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Floats, Snapshot


@plugin("closed-formula-scorer")
class ClosedFormulaScorer(Scorer, frozen=True):
    """Prefers the least (queued prefill + own uncached prefill) x (the endpoint's measured ms a token)."""

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        rates = candidates.recent_prefill_ms_per_token
        known = rates[~np.isnan(rates)]
        # An endpoint that was never measured is taken to be as quick as the quickest: so it soon will be.
        rates = np.where(np.isnan(rates), known.min() if len(known) else 1.0, rates)
        uncached = request.input_tokens * (1.0 - candidates.prefix_score)
        # Scores lie within [0, 1], and are clipped to it: the shortest time comes first, none ends at a bound.
        return 1 / (1 + (candidates.prefill_tokens + uncached) * rates)
