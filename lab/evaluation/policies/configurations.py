"""The picker's policies in the evaluation, each as the configuration that an operator would write."""

from epp.scheduling.configuration.config import DEFAULT_CONFIG
from lab.evaluation.policies import closed_formula  # noqa: F401  Importing it registers the scorer.

Weights = tuple[float, float, float]

_HEAD = """\
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
"""


def heuristic(queue: float, kv_cache: float, prefix: float) -> str:
    """Return a profile with weighted queue, KV cache and prefix scorers. A weight of 0 omits the scorer."""
    weights = {"queue-scorer": queue, "kv-cache-utilization-scorer": kv_cache, "prefix-cache-scorer": prefix}
    return _profile({scorer: weight for scorer, weight in weights.items() if weight})


def _profile(scorers: dict[str, float]) -> str:
    declared = "".join(f"- type: {scorer}\n" for scorer in scorers)
    used = "".join(f"  - pluginRef: {scorer}\n    weight: {weight:g}\n" for scorer, weight in scorers.items())
    return (
        f"{_HEAD}plugins:\n{declared}- type: max-score-picker\n"
        f"schedulingProfiles:\n- name: default\n  plugins:\n{used}  - pluginRef: max-score-picker\n"
    )


# The weights that tuning tries for each workload: queue, KV cache, prefix.
TUNED_WEIGHTS: tuple[Weights, ...] = (
    (1, 1, 0),
    (1, 1, 1),
    (1, 1, 3),
    (2, 1, 1),
    (1, 3, 1),
    (1, 3, 3),
    (1, 0, 1),
    (0, 1, 1),
    (0, 1, 3),
    (0, 3, 1),
)
DEFAULT = heuristic(1, 1, 0)
RANDOM = _HEAD + "plugins:\n- type: random-picker\n"
CLOSED_FORMULA = _HEAD + "plugins:\n- type: closed-formula-scorer\n- type: max-score-picker\n"
# The formula of the gateway API's own picker, with its defaults.
REFERENCE = _HEAD + "plugins:\n- type: slo-scorer\n  parameters: {strategy: reference}\n- type: max-score-picker\n"
# llm-d's default, as its guide "optimized baseline" ships it: every parameter has llm-d's default.
LLMD_DEFAULT = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: approx-prefix-cache-producer
- type: inflight-load-producer
- type: prefix-cache-affinity-filter
- type: token-load-scorer
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: prefix-cache-affinity-filter
  - pluginRef: token-load-scorer
"""
# llm-d's prediction, as its guide "predicted latency routing" ships it for requests with objectives.
LLMD_PREDICTED = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: approx-prefix-cache-producer
  parameters:
    maxPrefixTokensToMatch: 262144
- type: predicted-latency-producer
  parameters:
    streamingMode: true
- type: prefix-cache-affinity-filter
  name: strict-affinity-filter
  parameters:
    affinityThreshold: 0.99
    ttftSource: latencyPredictor
    maxTTFTPenaltyMs: 5000
- type: prefix-cache-affinity-filter
  name: loose-affinity-filter
  parameters:
    affinityThreshold: 0.8
    ttftSource: latencyPredictor
    maxTTFTPenaltyMs: 5000
- type: latency-scorer
- type: weighted-random-picker
- type: slo-headroom-tier-filter
- type: latency-slo-admitter
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: strict-affinity-filter
  - pluginRef: slo-headroom-tier-filter
  - pluginRef: loose-affinity-filter
  - pluginRef: latency-scorer
  - pluginRef: weighted-random-picker
"""
# The picker's default configuration.
SLO = DEFAULT_CONFIG
SLO_SHEDDING = SLO.replace("- type: slo-scorer\n", "- type: slo-scorer\n  parameters: {shed: all}\n")


def configurations(weights: Weights) -> dict[str, str]:
    """Return the picker's configurations by policy. `weights` are for `tuned`."""
    return {
        "default": DEFAULT,
        "tuned": heuristic(*weights),
        "closed-formula": CLOSED_FORMULA,
        "llmd-default": LLMD_DEFAULT,
        "reference": REFERENCE,
        "llmd-predicted": LLMD_PREDICTED,
        "slo": SLO,
        "slo-shedding": SLO_SHEDDING,
    }
