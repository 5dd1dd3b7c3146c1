"""What the picker learns of endpoints in virtual time."""

import numpy as np

from model_store import ROW_NAMES
from scripts.evaluation.replay import Prepared, replay, run_of, scenario_of


def test_rows_know_when_the_endpoints_step_began() -> None:
    scenario = scenario_of("poisson", 40.0, 1, 8.0)
    run = run_of("slo", scenario, 1, Prepared((1, 1, 1)))
    point = replay(scenario, run, "slo", 40.0, 1)
    assert run.trainer
    samples = run.trainer.models().samples()
    since_ms = samples.features[samples.ttft_ms > 0, ROW_NAMES.index("ms_since_token")]
    known = since_ms[np.isfinite(since_ms)]
    # Nothing is known where nobody is being answered, as in the beginning.
    assert len(since_ms) / 2 < len(known) < len(since_ms)
    # A request comes somewhere within a step: steps of decodes take about a TPOT, and those that prefill longer.
    assert 0.2 < np.median(known) / point.tpot_ms["p50"] < 1
    assert known.min() >= 0
    assert known.max() < point.ttft_ms["p99"]
