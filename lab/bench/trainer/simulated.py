"""Samples as the picker observes them: a public trace, replayed in virtual time over simulated engines."""

import numpy as np

from epp.scheduling.configuration.config import load_scheduler
from lab.evaluation.policies.configurations import RANDOM
from lab.evaluation.policies.picker import Picker
from lab.evaluation.replay.learning import LearningSettings, samples_of
from lab.evaluation.replay.replay import Run, simulate
from lab.evaluation.studies.rows import RecordingTrainer
from lab.loop.load import shorten
from model_store import ROW_NAMES
from simulator.workloads import WORKLOADS
from trainer.window import Rows, TargetData
from trainer.wire import Matrix

_KINDS = ("fast", "fast", "slow", "slow")
_REQUESTS = 2_000
# One sample in this many is held out.
_HELD_OUT = 5
_GENERATED = ROW_NAMES.index("num_tokens_generated")
_NO_FITS = LearningSettings(min_new_rows=1 << 30)


def simulated_samples(requests_per_s: float, seed: int) -> dict[str, TargetData]:
    """Return the samples of both targets that the picker teaches of whole responses; one in five is held out.

    Requests go to random endpoints, so that every situation occurs. Samples of a response's later stretches are left
    out, since no decision asks for such a prediction.
    """
    workload = shorten(WORKLOADS["azure-conversation"].on(*_KINDS))
    scenario = workload.scenario(requests_per_s, seed, _REQUESTS / requests_per_s)
    trainer = RecordingTrainer(_NO_FITS)
    picker = Picker(len(_KINDS), load_scheduler(RANDOM, {}), scenario.hash_tokens, seed, trainer)
    simulate(scenario, Run(picker, picker.scrape, picker.predicted, trainer))
    samples = samples_of(trainer.rows)
    whole = samples.features[:, _GENERATED] == 0
    found = {}
    for name, latency_ms in (("ttft", samples.ttft_ms), ("tpot", samples.tpot_ms)):
        kept = whole & (latency_ms > 0)
        found[name] = _split(samples.features[kept], latency_ms[kept])
    return found


def _split(features: Matrix, latency_ms: Matrix) -> TargetData:
    every = Rows(features, latency_ms, np.arange(len(latency_ms)))
    held_out = every.arrival % _HELD_OUT == 0
    return TargetData(every.part(~held_out), every.part(held_out))
