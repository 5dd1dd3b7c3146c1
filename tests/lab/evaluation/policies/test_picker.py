"""The picker's knowledge of endpoints in virtual time, and llm-d's configurations in it."""

import numpy as np
import pytest

from epp.scheduling.configuration.config import DEFAULT_CONFIG, load_scheduler
from lab.evaluation.plan import LLMD_DEFAULT, LLMD_PREDICTED
from lab.evaluation.policies.picker import Picker
from lab.evaluation.replay.learning import LearningSettings, VirtualTrainer
from lab.evaluation.replay.replay import Prepared, replay, run_of
from model_store import ROW_NAMES
from simulator.cluster import Cluster
from simulator.workloads import WORKLOADS


def test_rows_have_the_time_since_the_endpoints_step_began() -> None:
    scenario = WORKLOADS["poisson"].scenario(40.0, 1, 8.0)
    trainer = VirtualTrainer(LearningSettings(min_new_rows=1 << 30))
    picker = Picker(len(scenario.endpoints), load_scheduler(DEFAULT_CONFIG, {}), scenario.hash_tokens, 1, trainer)
    cluster = Cluster(scenario.endpoints, scenario.hash_tokens, picker)
    picker.attach(cluster)
    cluster.run(scenario.arrivals, tick=lambda now_s: picker.scrape(cluster, now_s))
    samples = trainer.models().samples()
    ttft_ms, tpot_ms = (column[column > 0] for column in (samples.ttft_ms, samples.tpot_ms))
    since_ms = samples.features[samples.ttft_ms > 0, ROW_NAMES.index("ms_since_token")]
    known = since_ms[np.isfinite(since_ms)]
    # The time is unknown on an endpoint that answers no request, as at the beginning.
    assert len(since_ms) / 2 < len(known) < len(since_ms)
    # A request comes somewhere within a step. Steps that decode take about a TPOT; steps that prefill take longer.
    assert 0.2 < np.median(known) / np.median(tpot_ms) < 1
    assert known.min() >= 0
    assert known.max() < np.quantile(ttft_ms, 0.99)


@pytest.mark.parametrize("policy", [LLMD_DEFAULT, LLMD_PREDICTED])
def test_llm_d_s_configurations_place_requests_and_observe_every_response(policy: str) -> None:
    scenario = WORKLOADS["shared-prefix"].scenario(80.0, 1, 2.0)
    run = run_of(policy, scenario, 1, Prepared((1, 1, 1)))
    assert isinstance(run.policy, Picker)
    result = replay(scenario, run, policy, 80.0, 1)
    assert (result.requests, result.shed) == (136, 0)
    assert run.policy.director.books.observes_all
    assert (run.trainer is not None) == (policy == LLMD_PREDICTED)
