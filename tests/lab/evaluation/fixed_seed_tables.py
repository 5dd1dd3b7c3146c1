"""Prints the tables of test_fixed_seed anew: `python -m tests.lab.evaluation.fixed_seed_tables`, some minutes.

An advantage is the mean of DRAWS runs whose predictions, in training and after it, have relative errors of ERROR. Its
standard deviation shows how much the rounding of another build may move one run.
"""

import dataclasses
import statistics
import sys

import numpy as np

from epp.prediction.features import FeatureColumns
from epp.scheduling.snapshot import Floats, Predictions
from lab.evaluation.replay.learning import VirtualTrainer
from tests.lab.evaluation import test_fixed_seed as fixed

DRAWS, ERROR = 6, 1e-6
_exact = VirtualTrainer.predict


def errors(rng: np.random.Generator, values: Floats) -> Floats:
    factors: Floats = 1 + ERROR * rng.standard_normal(values.shape)
    return factors


def disturb(seed: int) -> None:
    """Give all predictions from now on errors that the seed decides."""
    rng = np.random.default_rng(seed)

    def predict(self: VirtualTrainer, columns: FeatureColumns, now_s: float) -> Predictions | None:
        found = _exact(self, columns, now_s)
        if found is None:
            return None
        return dataclasses.replace(
            found,
            ttft_ms=found.ttft_ms * errors(rng, found.ttft_ms),
            tpot_ms=found.tpot_ms * errors(rng, found.tpot_ms),
            ttft_median_ms=None if found.ttft_median_ms is None else found.ttft_median_ms * errors(rng, found.ttft_ms),
            tpot_median_ms=None if found.tpot_median_ms is None else found.tpot_median_ms * errors(rng, found.tpot_ms),
        )

    VirtualTrainer.predict = predict  # type: ignore[method-assign]
    fixed.prepared.cache_clear()
    fixed.run_once.cache_clear()


def main() -> None:
    sys.stdout.write("ATTAINMENT\n")
    for workload, policy in fixed.CASES:
        attainment = fixed.run_once(workload, policy, fixed.SEEDS[workload][0]).attainment
        sys.stdout.write(f"  {workload} {policy}: {attainment:.3f}\n")
    found: dict[tuple[str, str], list[float]] = {case: [] for case in fixed.OURS}
    for draw in range(DRAWS):
        disturb(draw)
        for workload, policy in fixed.OURS:
            found[workload, policy].append(fixed.advantage(workload, policy))
    sys.stdout.write("ADVANTAGE: mean, standard deviation\n")
    for (workload, policy), values in found.items():
        sys.stdout.write(f"  {workload} {policy}: {statistics.mean(values):.3f}, {statistics.stdev(values):.4f}\n")


if __name__ == "__main__":
    main()
