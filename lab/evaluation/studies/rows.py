"""Rows that a run of a workload teaches, and how well models do on them that are fitted to its first part."""

import os

import numpy as np

from epp.prediction.features import FeatureColumns
from epp.scheduling.configuration.config import load_scheduler
from lab.evaluation.plan import OTHER_TRAFFIC, OURS
from lab.evaluation.policies.configurations import SLO
from lab.evaluation.policies.picker import Picker
from lab.evaluation.replay.learning import Row, VirtualTrainer, samples_of
from lab.evaluation.replay.replay import LEARNING, Prepared, Run, prepared_of, replay, scenario_of
from lab.evaluation.studies.quality import TargetQuality, judge
from simulator.workloads import WORKLOADS
from trainer.wire import Samples

# Of neither the traffic that is judged nor that which models were learnt from.
_SEED = 2 * OTHER_TRAFFIC
LOAD = 0.8
_SECONDS = 60.0
MOST_ROWS = 6000


class _Remembering(VirtualTrainer):
    """Keeps all rows in their order, which the trainer's window doesn't."""

    def __init__(self, prepared: Prepared) -> None:
        super().__init__(LEARNING, prepared.models)
        self.rows: list[Row] = []

    def add(self, features: FeatureColumns, ttft_ms: float = 0.0, tpot_ms: float = 0.0) -> None:
        self.rows.append((features, ttft_ms, tpot_ms))
        super().add(features, ttft_ms, tpot_ms)


def judge_rows(workload: str, prepared: bytes | None) -> list[TargetQuality]:
    """Of both latencies, placed by the slo profile; the newest rows, where there are many."""
    samples = collected(workload, prepared_of(prepared), _SECONDS)
    found = []
    for target, y_ms in (("ttft", samples.ttft_ms), ("tpot", samples.tpot_ms)):
        carrying = np.flatnonzero(y_ms > 0)[-MOST_ROWS:]
        found.append(judge(target, samples.features[carrying], y_ms[carrying]))
    return found


def collected(workload: str, prepared: Prepared, seconds: float) -> Samples:
    """What the picker teaches of a run, in the order in which it does."""
    rate = LOAD * WORKLOADS[workload].typical_rps
    scenario = scenario_of(workload, rate, _SEED, seconds)
    trainer = _Remembering(prepared)
    scheduler = load_scheduler(SLO, os.environ)
    picker = Picker(len(scenario.endpoints), scheduler, scenario.hash_tokens, _SEED, trainer)
    replay(scenario, Run(picker, picker.scrape, picker.predicted, trainer), OURS, rate, _SEED)
    return samples_of(trainer.rows)
