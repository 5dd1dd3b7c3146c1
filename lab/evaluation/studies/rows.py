"""The training rows of a workload's run, and the quality of models fitted to the first part of them."""

import os

import numpy as np

from epp.prediction.features import FeatureColumns
from epp.prediction.wire import LengthSource
from epp.scheduling.configuration.config import load_scheduler
from lab.evaluation.plan import OTHER_TRAFFIC, OURS
from lab.evaluation.policies.configurations import SLO
from lab.evaluation.policies.picker import Picker
from lab.evaluation.replay.learning import LearningSettings, Models, Row, VirtualTrainer, samples_of
from lab.evaluation.replay.replay import LEARNING, Prepared, Run, decode_prepared, replay, scenario_of
from lab.evaluation.studies.quality import TargetQuality, judge
from simulator.workloads import WORKLOADS
from trainer.wire import Samples

# A seed for traffic of its own: not that of judged runs or of models.
_SEED = 2 * OTHER_TRAFFIC
# Request rate, as a share of the typical rate.
LOAD = 0.8
_SECONDS = 60.0
MOST_ROWS = 6000


class RecordingTrainer(VirtualTrainer):
    """A trainer that also keeps all rows in order, which the window doesn't."""

    def __init__(self, settings: LearningSettings, models: Models | None = None) -> None:
        super().__init__(settings, models)
        self.rows: list[Row] = []

    def add(
        self,
        features: FeatureColumns,
        ttft_ms: float = 0.0,
        tpot_ms: float = 0.0,
        length_source: LengthSource = "estimate",
    ) -> None:
        self.rows.append((features, ttft_ms, tpot_ms))
        super().add(features, ttft_ms, tpot_ms, length_source)


def judge_rows(workload: str, prepared: bytes | None) -> list[TargetQuality]:
    """Judge models of both latencies on the newest rows of a run that the slo profile places."""
    samples = collect_rows(workload, decode_prepared(prepared), _SECONDS)
    found = []
    for target, y_ms in (("ttft", samples.ttft_ms), ("tpot", samples.tpot_ms)):
        carrying = np.flatnonzero(y_ms > 0)[-MOST_ROWS:]
        found.append(judge(target, samples.features[carrying], y_ms[carrying]))
    return found


def collect_rows(workload: str, prepared: Prepared, seconds: float) -> Samples:
    """Return the samples that the picker adds during a run, in order."""
    rate = LOAD * WORKLOADS[workload].typical_rps
    scenario = scenario_of(workload, rate, _SEED, seconds)
    trainer = RecordingTrainer(LEARNING, prepared.models)
    scheduler = load_scheduler(SLO, os.environ)
    picker = Picker(len(scenario.endpoints), scheduler, scenario.hash_tokens, _SEED, trainer)
    replay(scenario, Run(picker, picker.scrape, picker.predicted, trainer), OURS, rate, _SEED)
    return samples_of(trainer.rows)
