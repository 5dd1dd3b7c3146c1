"""The part of TPOT that more knowledge of the present could predict: models that also know the engine's state.

Besides the picker's features, these models get the engine's internal state, and the request's TPOT if no other request
comes. That TPOT is predicted from the engine's own costs. Answers in progress have their expected lengths.
"""

import os

import numpy as np

from epp.scheduling.configuration.config import load_scheduler
from lab.evaluation.plan import OTHER_TRAFFIC
from lab.evaluation.policies.configurations import SLO
from lab.evaluation.policies.foresight import REPLACED, begin_reading, foresee, load_of, prompt_of, read_prompts
from lab.evaluation.policies.lengths import Lengths, expected_lengths
from lab.evaluation.policies.picker import Picker
from lab.evaluation.replay.learning import VirtualTrainer
from lab.evaluation.replay.replay import LEARNING, Run, decode_prepared, scenario_of, simulate
from lab.evaluation.studies.contenders import by_plan
from lab.evaluation.studies.experiment_model import ExperimentPlan, TargetPlan
from lab.evaluation.studies.noise_floor import StateAwareErrors
from lab.evaluation.studies.quality import judge
from model_store import ROW_NAMES
from simulator.arrival import Arrival
from simulator.cluster import Cluster, Flight, Placement
from trainer.derivation import design_columns
from trainer.wire import Matrix

STATE = (
    "engine_decodes",
    "engine_kv_tokens",
    "engine_tokens_to_come",
    "engine_prompt_tokens",
    "pool_requests",
    "foreseen_tpot_ms",
)
SECONDS = 150.0
# A seed for traffic of its own: not that of judged runs, of models, of rows or of futures.
_SEED = 4 * OTHER_TRAFFIC
_NAMES = (*ROW_NAMES, *STATE)
_OURS = ExperimentPlan(names=_NAMES)
_STATE_AWARE = ExperimentPlan(names=_NAMES, tpot=TargetPlan((*design_columns("tpot"), *STATE)))


def compare_state_aware(workload: str, requests_per_s: float, prepared: bytes | None) -> StateAwareErrors | None:
    """Judge both models on answers that the slo profile places; None with too few observed answers."""
    rows, tpot_ms = state_aware_rows(workload, requests_per_s, prepared, SECONDS)
    try:
        found = judge(
            "tpot", rows, tpot_ms, contenders={"ours": by_plan(_OURS), "told": by_plan(_STATE_AWARE)}, plan=_OURS
        )
    except ValueError:
        return None
    ours, state_aware = found.models
    return StateAwareErrors(ours.mdape, state_aware.mdape, found.judged_rows)


def state_aware_rows(
    workload: str, requests_per_s: float, prepared: bytes | None, seconds: float
) -> tuple[Matrix, Matrix]:
    """Return rows [answers, ROW_NAMES + STATE] at the moments of placement, and TPOTs, in the order of ends."""
    scenario = scenario_of(workload, requests_per_s, _SEED, seconds)
    trainer = VirtualTrainer(LEARNING, decode_prepared(prepared).models)
    scheduler = load_scheduler(SLO, os.environ)
    picker = _StateRecorder(len(scenario.endpoints), scheduler, scenario.hash_tokens, _SEED, trainer)
    picker.lengths = expected_lengths(scenario.name)
    picker.until_s = scenario.arrivals[-1].arrival_s
    simulate(scenario, Run(picker, picker.scrape, picker.predicted, trainer))
    rows = np.array(picker.rows, dtype=np.float32).reshape(-1, len(_NAMES))
    return rows, np.array(picker.tpot_ms, dtype=np.float32)


class _StateRecorder(Picker):
    """A picker that records a row for each complete answer, with the state of the engine that it was sent to."""

    lengths: Lengths
    until_s: float = float("inf")

    def attach(self, cluster: Cluster) -> None:
        super().attach(cluster)
        self.rows: list[list[float]] = []
        self.tpot_ms: list[float] = []
        self._states: dict[int, list[float]] = {}

    def place(self, arrival: Arrival, now_s: float) -> Placement | None:
        placement = super().place(arrival, now_s)
        if placement and self._cluster and self._requests[arrival.index].is_observed:
            self._states[arrival.index] = state_of(self._cluster, placement.endpoint, arrival, now_s, self.lengths)
        return placement

    def ended(self, flight: Flight, now_s: float) -> None:
        routed = self._requests[flight.arrival.index]
        state = self._states.pop(flight.arrival.index, None)
        super().ended(flight, now_s)
        if state and flight.arrival.output_tokens > 1 and now_s <= self.until_s:
            self.rows.append([*routed.record.features[:, 0].tolist(), *state])
            self.tpot_ms.append(flight.tpot_ms)


def state_of(cluster: Cluster, endpoint: int, arrival: Arrival, now_s: float, lengths: Lengths) -> list[float]:
    """Return an engine's state before the request is submitted, in the order of STATE."""
    engine = cluster.engines[endpoint]
    load = load_of(cluster, endpoint, now_s, lengths)
    own = prompt_of(arrival, engine.cached_tokens(arrival.hashes, arrival.prompt_tokens), lengths)
    reading = begin_reading(load)
    read_prompts(load, reading, [*load.prompts, own])
    future = foresee(load, reading, REPLACED)
    at = future.requests.tolist().index(arrival.index)
    tpot_ms = (future.ended_s[at] - future.first_s[at]) * 1000 / max(own.length - 1, 1)
    requests = sum(one.running + one.waiting for one in cluster.engines) / len(cluster.engines)
    return [
        float(len(load.decodes.steps)),
        float(load.decodes.kv_tokens.sum()),
        float(load.decodes.steps.sum()),
        float(sum(one.tokens for one in load.prompts)),
        requests,
        float(tpot_ms),
    ]
