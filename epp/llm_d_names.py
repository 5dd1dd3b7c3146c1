"""Latencies by the names that llm-d's metrics have, for its guides of autoscaling.

The names are those of llm-d-router 0.9: `llm_d_epp_...`, and `inference_objective_...`, which llm-d has deprecated. Its
histograms have other buckets, and further labels for tenant, priority and kind of answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from epp.model_series import Family, Renamed

# Which plugin predicted, in llm-d's words.
_BY = {"plugin_name": "predicted-latency-producer", "plugin_type": "predicted-latency-producer"}


def latency_names(
    name: str,
    meaning: str,
    observed: Family[Any],
    predicted: Family[Any],
    prediction_duration: Family[Any],
) -> list[Renamed]:
    """Return the families of a latency, `ttft` or `tpot`, under both of llm-d's prefixes."""
    # llm-d tells the observed time per token only for streams, as Headroom does, and says so in the new name alone.
    new = {"ttft": "llm_d_epp_request_ttft_seconds", "tpot": "llm_d_epp_request_streaming_tpot_seconds"}[name]
    duration = f"request_{name}_prediction_duration_seconds"
    observed_as = f"Observed {meaning}"
    predicted_as = f"Predicted {meaning} of the picked endpoint"
    duration_as = f"Duration of the batch that predicted {meaning}"
    return [
        _histogram(new, observed_as, observed),
        _histogram(f"inference_objective_request_{name}_seconds", observed_as, observed),
        _histogram(f"llm_d_epp_request_predicted_{name}_seconds", predicted_as, predicted, _BY),
        _histogram(f"inference_objective_request_predicted_{name}_seconds", predicted_as, predicted),
        _histogram(f"llm_d_epp_{duration}", duration_as, prediction_duration, _BY),
        _histogram(f"inference_objective_{duration}", duration_as, prediction_duration),
    ]


def normalised_names(family: Family[Any]) -> list[Renamed]:
    """Return the family of request durations divided by output tokens under both prefixes."""
    meaning = "Request duration divided by the number of output tokens"
    return [
        _histogram("llm_d_epp_request_ntpot_seconds", meaning, family),
        _histogram("inference_objective_normalized_time_per_output_token_seconds", meaning, family),
    ]


def violation_names(by_latency: Sequence[tuple[str, Family[Any]]]) -> list[Renamed]:
    """Return the counters of violations of each latency under both prefixes, by the label `type`."""
    meaning = "Observed requests that missed their SLO, by its type"
    return [
        Renamed(name, "counter", meaning, [(family, {**more, "type": latency}) for latency, family in by_latency])
        for name, more in (
            ("llm_d_epp_request_slo_violation_total", _BY),
            ("inference_objective_request_slo_violation_total", {}),
        )
    ]


def _histogram(name: str, meaning: str, family: Family[Any], more: Mapping[str, str] | None = None) -> Renamed:
    return Renamed(name, "histogram", meaning, [(family, more or {})])
