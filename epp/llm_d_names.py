"""Latencies by the names that llm-d's metrics have, for its guides of autoscaling.

The names are those of llm-d-router 0.9: `llm_d_epp_...`, and `inference_objective_...`, which llm-d has deprecated. Its
histograms have other buckets, and further labels for tenant, priority and kind of answer.
"""

from collections.abc import Sequence
from typing import Any

from epp.model_series import Family, Renamed

# Which plugin predicted, in llm-d's words.
_BY = {"plugin_name": "predicted-latency-producer", "plugin_type": "predicted-latency-producer"}


def latency_names(
    name: str, observed: Family[Any], predicted: Family[Any], prediction_duration: Family[Any]
) -> list[Renamed]:
    """Return the families of a latency, `ttft` or `tpot`, under both of llm-d's prefixes."""
    # llm-d observes the time per output token of streams only, as Headroom does. The newer name says so.
    newer = {"ttft": "llm_d_epp_request_ttft_seconds", "tpot": "llm_d_epp_request_streaming_tpot_seconds"}[name]
    duration = f"request_{name}_prediction_duration_seconds"
    return [
        Renamed(newer, [(observed, {})]),
        Renamed(f"inference_objective_request_{name}_seconds", [(observed, {})]),
        Renamed(f"llm_d_epp_request_predicted_{name}_seconds", [(predicted, _BY)]),
        Renamed(f"inference_objective_request_predicted_{name}_seconds", [(predicted, {})]),
        Renamed(f"llm_d_epp_{duration}", [(prediction_duration, _BY)]),
        Renamed(f"inference_objective_{duration}", [(prediction_duration, {})]),
    ]


def normalised_names(family: Family[Any]) -> list[Renamed]:
    """Return the family of request durations divided by output tokens under both prefixes."""
    names = ("llm_d_epp_request_ntpot_seconds", "inference_objective_normalized_time_per_output_token_seconds")
    return [Renamed(name, [(family, {})]) for name in names]


def violation_names(by_latency: Sequence[tuple[str, Family[Any]]]) -> list[Renamed]:
    """Return the counters of violations of each latency under both prefixes, by the label `type`."""
    return [
        Renamed(
            name,
            [(family, {**more, "type": latency}) for latency, family in by_latency],
            "Observed requests that missed their SLO, by its type",
        )
        for name, more in (
            ("llm_d_epp_request_slo_violation_total", _BY),
            ("inference_objective_request_slo_violation_total", {}),
        )
    ]
