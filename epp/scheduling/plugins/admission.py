"""Admitters that shed requests of a priority below 0 by load."""

import math
from functools import cached_property
from typing import Annotated, ClassVar

import click
import msgspec
import numpy as np

from epp.flags import Duration
from epp.scheduling.configuration.parameters import Count
from epp.scheduling.plugin import Admitter, Filter, plugin
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Bools, Snapshot

Positive = Annotated[float, msgspec.Meta(gt=0)]


@plugin("utilization-detector")
class UtilizationDetector(Filter, Admitter, frozen=True):
    """Sheds requests of a priority below 0 while the pool is saturated; every configuration has one, declared or not.

    The pool is not saturated while some candidate has fresh metrics with queue and KV cache within the thresholds.
    Metrics are fresh when they are younger than `metricsStalenessThreshold`. On an endpoint with nothing in flight,
    older metrics count too, unless the pool calls them stale: idle endpoints are scraped less often.
    In a profile, the plugin is also a filter: it keeps fresh candidates below the thresholds raised by `headroom`.
    The filter keeps all candidates when none is left.
    """

    queue_depth_threshold: Count = 5
    kv_cache_util_threshold: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    metrics_staleness_threshold: str = "200ms"
    headroom: Annotated[float, msgspec.Meta(ge=0)] = 0.0

    environment: ClassVar[dict[str, str]] = {
        "SD_QUEUE_DEPTH_THRESHOLD": "queueDepthThreshold",
        "SD_KV_CACHE_UTIL_THRESHOLD": "kvCacheUtilThreshold",
        "SD_METRICS_STALENESS_THRESHOLD": "metricsStalenessThreshold",
    }

    def __post_init__(self) -> None:
        try:
            staleness_s = self.staleness_s
        except click.BadParameter as error:
            raise ValueError(f"metricsStalenessThreshold: {error.message}") from error
        if staleness_s <= 0:
            raise ValueError("metricsStalenessThreshold: expected more than 0s")

    @cached_property
    def staleness_s(self) -> float:
        return Duration().convert(self.metrics_staleness_threshold, None, None)

    def admit(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> str | None:
        if request.priority >= 0:
            return None
        available = (
            self._fresh(candidates)
            & (candidates.waiting <= self.queue_depth_threshold)
            & (candidates.kv_usage <= self.kv_cache_util_threshold)
        )
        return None if available.any() else "system saturated, sheddable request dropped"

    def keep(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Bools:
        raised = 1.0 + self.headroom
        keep: Bools = (
            self._fresh(candidates)
            & (candidates.waiting < self.queue_depth_threshold * raised)
            & (candidates.kv_usage < self.kv_cache_util_threshold * raised)
        )
        return keep if keep.any() else np.ones(len(candidates), dtype=bool)

    def _fresh(self, candidates: Snapshot) -> Bools:
        fresh: Bools = (candidates.metrics_age_s < self.staleness_s) | (~candidates.stale & (candidates.in_flight == 0))
        return fresh


@plugin("probabilistic-admitter")
class ProbabilisticAdmitter(Admitter, frozen=True):
    """Sheds a request of a priority below 0 with probability min(k * saturation^power, 1).

    A candidate's saturation is the greater of queue and KV cache use, each divided by its threshold.
    The pool's saturation is the mean over the candidates.
    """

    queue_depth_threshold: Count = 5
    kv_cache_util_threshold: Positive = 0.8
    power: Positive = 5.0
    k: Positive = 300.0

    def admit(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> str | None:
        if request.priority >= 0 or rng.random() >= self.probability(candidates):
            return None
        return "system saturated, sheddable request dropped"

    def probability(self, candidates: Snapshot) -> float:
        """Return the probability that a request of a priority below 0 is shed."""
        queue = candidates.waiting / self.queue_depth_threshold
        saturation = float(np.maximum(queue, candidates.kv_usage / self.kv_cache_util_threshold).mean())
        if saturation <= 0:
            return 0.0
        return math.exp(min(math.log(self.k) + self.power * math.log(saturation), 0.0))
