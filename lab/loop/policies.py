"""The demo's phases: a warm-up, then one for each policy. A policy is Envoy's own, or a picker configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epp.scheduling.configuration.config import DEFAULT_CONFIG
from headroom.gateway.clusters import BALANCING
from headroom.gateway.envoy import POLICY_HEADER
from lab.evaluation.policies.configurations import TUNED_WEIGHTS, Weights, configurations
from lab.evaluation.replay.replay import Prepared, replay, run_of
from lab.loop.load import OfferedLoad

PREDICTION_HEADER = "x-prediction-based-scheduling"
WARM_UP, TUNED = "warm-up", "tuned"
ENVOY_POLICIES = tuple(BALANCING)
PICKER_POLICIES = tuple(configurations(TUNED_WEIGHTS[0]))
DEFAULT_POLICIES = ("round-robin", "default", "slo")
_TUNING_SEED = 1_000_000
_TUNING_S = 30.0


@dataclass(frozen=True, slots=True)
class Phase:
    """A period of load under one policy. All policies get the same arrivals, lengths and objectives, but other texts.

    `configuration` is the picker's; None if Envoy skips the picker. `share` multiplies the demo's request rate.
    """

    name: str
    title: str
    headers: Mapping[str, str]
    configuration: str | None = None
    share: float = 1.0


WARM_UP_PHASE = Phase(WARM_UP, "warm-up (profile default)", {PREDICTION_HEADER: "false"}, DEFAULT_CONFIG)


def phases(names: Sequence[str], load: OfferedLoad) -> tuple[Phase, ...]:
    """Return the phases of these policies, in order. Each name is in ENVOY_POLICIES or PICKER_POLICIES."""
    texts = configurations(tuned_weights(load) if TUNED in names else TUNED_WEIGHTS[0])
    return tuple(_phase(name, texts) for name in names)


def tuned_weights(load: OfferedLoad) -> Weights:
    """Return the weights under which most requests meet their objectives in virtual time.

    The requests come from the same load, with another seed than the demo's.
    """
    scenario, rate = load.scenario(_TUNING_SEED, _TUNING_S / load.speed_factor), load.requests_per_s

    def attained(weights: Weights) -> float:
        run = run_of(TUNED, scenario, _TUNING_SEED, Prepared(weights))
        return replay(scenario, run, TUNED, rate, _TUNING_SEED).attainment

    return max(TUNED_WEIGHTS, key=attained)


def _phase(name: str, texts: Mapping[str, str]) -> Phase:
    if name in BALANCING:
        return Phase(name, f"load, {name} (Envoy)", {POLICY_HEADER: name})
    return Phase(name, f"load, {name}", {PREDICTION_HEADER: "true"}, texts[name])
