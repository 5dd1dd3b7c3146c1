"""Scorers of an endpoint's scraped load."""

import numpy as np

from epp.scheduling.plugin import Scorer, plugin
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Floats, Snapshot


@plugin("queue-scorer")
class QueueScorer(Scorer, frozen=True):
    """Prefers the shorter queue, relative to the candidates' longest and shortest; equal queues all score 1."""

    def score(self, request: Request, pool: Snapshot, rng: np.random.Generator) -> Floats:
        longest, shortest = pool.waiting.max(), pool.waiting.min()
        if longest == shortest:
            return np.ones(len(pool))
        scores: Floats = (longest - pool.waiting) / (longest - shortest)
        return scores


@plugin("kv-cache-utilization-scorer")
class KvCacheUtilizationScorer(Scorer, frozen=True):
    """Prefers the emptier KV cache."""

    def score(self, request: Request, pool: Snapshot, rng: np.random.Generator) -> Floats:
        scores: Floats = 1.0 - pool.kv_usage
        return scores
