"""The result of one run: one workload at one rate by one policy."""

from collections.abc import Callable, Sequence

import msgspec

from lab.evaluation.plan import Preparation
from lab.evaluation.studies.noise_floor import TpotBounds
from lab.evaluation.studies.quality import TargetQuality

Percentiles = dict[str, float]  # by p50, p90, p95 and p99


class PointResult(msgspec.Struct, frozen=True):
    """The result of one policy on one workload at one rate and seed.

    All figures are of the judged requests, which arrive after the warm-up. All numbers are finite. In a run that was
    cut, `attainment` is an upper bound, and all other figures are of the requests that had ended by then.
    """

    workload: str
    policy: str
    requests_per_s: float
    seed: int
    requests: int
    attainment: float
    """The share of requests that met both objectives."""
    attainment_by_class: dict[str, float]
    goodput_rps: float
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    e2e_ms: Percentiles
    throughput_tokens_per_s: float
    """Output tokens."""
    fairness: float
    """Jain's index of output tokens over endpoints, each divided by the endpoint's capacity."""
    cached_share: float
    """The share of prompt tokens that were found in the endpoints' caches."""
    preemptions: int
    decision_us: float
    """Mean wall time of a decision."""
    wall_s: float
    """Wall time of the whole run."""
    ttft_mdape: float | None = None
    """Median absolute percentage error. This and the next two are None for a policy without predictions."""
    tpot_mdape: float | None = None
    coverage_q90: float | None = None
    """Percentage of observations at or below their predicted 0.9-quantile."""
    errors_over_time: list[tuple[float, float, float, float]] = []
    """Bins of (start in s, TTFT MdAPE, TPOT MdAPE, coverage), in order, without empty ones.

    They include the requests of the warm-up. If endpoints change, only requests on these endpoints count.
    """
    shed: int = 0
    is_cut: bool = False


class PointOptions(msgspec.Struct, frozen=True):
    """Options of a run; the defaults are the evaluation's."""

    endpoints: int | None = None
    """If set, the workload's pool is repeated or cut to this number of endpoints."""
    until_decided: bool = False
    """If set, cut the run as soon as it can attain none of the wanted shares."""


RunPoint = Callable[[str, float, int, str, float, bytes | None, PointOptions], PointResult]
"""Called with workload, requests/s, seed, policy, seconds of arrivals, prepared data and options."""
JudgeRows = Callable[[str, bytes | None], Sequence[TargetQuality]]
"""Called with workload and prepared data. Returns the quality of models of both latencies."""
FindTpotBounds = Callable[[str, float, bytes | None], TpotBounds]
"""Called with workload, requests/s and prepared data."""
Prepare = Callable[[str, Preparation], bytes | None]
"""Called with workload and preparation. Returns warm models and tuned weights for all runs of the workload."""
