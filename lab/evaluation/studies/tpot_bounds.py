"""Bounds of TPOT prediction on a workload: the unknown future, and the unknown part of the present."""

from lab.evaluation.studies.futures import tpot_floor
from lab.evaluation.studies.noise_floor import TpotBounds
from lab.evaluation.studies.state_aware import compare_state_aware


def tpot_bounds(workload: str, requests_per_s: float, prepared: bytes | None) -> TpotBounds:
    return TpotBounds(
        tpot_floor(workload, requests_per_s, prepared), compare_state_aware(workload, requests_per_s, prepared)
    )
