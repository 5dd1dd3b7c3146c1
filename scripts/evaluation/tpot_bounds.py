"""How well TPOT could be predicted on a workload: by what the future decides, and by what the present could tell."""

from scripts.evaluation.futures import tpot_floor
from scripts.evaluation.noise_floor import TpotBounds
from scripts.evaluation.told import told_tpot


def tpot_bounds(workload: str, requests_per_s: float, prepared: bytes | None) -> TpotBounds:
    return TpotBounds(tpot_floor(workload, requests_per_s, prepared), told_tpot(workload, requests_per_s, prepared))
