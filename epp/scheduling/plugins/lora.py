"""A scorer that prefers endpoints where the request's LoRA adapter is loaded or can be loaded."""

import numpy as np

from epp.scheduling.plugin import Scorer, plugin
from epp.scheduling.request import Request
from epp.scheduling.snapshot import NO_ADAPTERS, Adapters, Floats, Snapshot


@plugin("lora-affinity-scorer")
class LoraAffinityScorer(Scorer, frozen=True):
    """Scores 1 where the request's adapter is loaded, 0.8 with room for one more, 0.6 where it waits, else 0."""

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        adapters = candidates.adapters
        if adapters.count(NO_ADAPTERS) == len(adapters):
            return np.zeros(len(candidates))
        return np.fromiter((_score(request.model, each) for each in adapters), float, len(candidates))


def _score(model: str, adapters: Adapters) -> float:
    if model in adapters.active:
        return 1.0
    if len(adapters.active) + len(adapters.waiting) < adapters.capacity:
        return 0.8
    return 0.6 if model in adapters.waiting else 0.0
