"""What one run of a workload at one rate by one policy came to."""

from collections.abc import Callable, Sequence

import msgspec

from lab.evaluation.plan import Preparation
from lab.evaluation.studies.noise_floor import TpotBounds
from lab.evaluation.studies.quality import TargetQuality

Percentiles = dict[str, float]  # by p50, p90, p95 and p99


class PointResult(msgspec.Struct, frozen=True):
    """One policy on one workload at one rate and seed.

    Everything is of the judged requests: those that arrive after the warm-up. All numbers are finite. Of a run that was
    cut, `attainment` is what it could have come to at most; all else is of the requests that had ended until then.
    """

    workload: str
    policy: str
    requests_per_s: float
    seed: int
    requests: int
    attainment: float
    """Share of the requests that met both of their objectives."""
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
    """Prompt tokens found in the endpoints' caches."""
    preemptions: int
    decision_us: float
    """Mean wall time of a decision."""
    wall_s: float
    """Of the whole run."""
    ttft_mdape: float | None = None
    """Median absolute percentage error, in percent; None with a policy that predicts nothing. So are the next two."""
    tpot_mdape: float | None = None
    coverage_q90: float | None = None
    """Percent of the observations that stayed below their predicted 0.9-quantile."""
    errors_over_time: list[tuple[float, float, float, float]] = []
    """Bins of (second at the start, TTFT MdAPE, TPOT MdAPE, coverage), in order; empty ones are left out.

    Of all requests, the warm-up's too; where endpoints change, of those on these endpoints alone.
    """
    shed: int = 0
    is_cut: bool = False


class PointOptions(msgspec.Struct, frozen=True):
    """What a run may differ in from the evaluation's usual one."""

    endpoints: int | None = None
    """The workload's pool, repeated or cut to this many endpoints."""
    until_decided: bool = False
    """The run is cut as soon as it can attain no share that matters, wherever its rate is far too high."""


RunPoint = Callable[[str, float, int, str, float, bytes | None, PointOptions], PointResult]
"""By workload, requests/s, seed, policy, seconds of arrivals, what was prepared, and options."""
JudgeRows = Callable[[str, bytes | None], Sequence[TargetQuality]]
"""By workload and what was prepared: how well models of both latencies do on rows of its own."""
FindTpotBounds = Callable[[str, float, bytes | None], TpotBounds]
"""By workload, requests/s and what was prepared."""
Prepare = Callable[[str, Preparation], bytes | None]
"""By workload: warm models and tuned weights, for all its runs."""
