"""Every query of the dashboard returns data from a real Prometheus that scrapes the loop under traffic."""

import json

import pytest

from lab.loop.stack import MODEL
from tests.helm.release import CHART
from tests.monitoring.conftest import Loop
from tests.monitoring.prometheus import NAMESPACE, Prometheus
from tests.monitoring.traffic import traffic, until_true

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("monitoring")]
# What Grafana puts in the place of the dashboard's variables: all pods, and four scrapes.
VARIABLES = {"$namespace": NAMESPACE, "$pod": ".+", "$__rate_interval": "4s"}


def queries() -> list[str]:
    panels = json.loads((CHART / "dashboards" / "headroom.json").read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    for variable, value in VARIABLES.items():
        found = [query.replace(variable, value) for query in found]
    return found


# As llm-d's guides of autoscaling by objectives ask: predicted and observed latencies, and violations.
GUIDES = [
    'histogram_quantile(0.9, sum by (le) (rate(llm_d_epp_request_predicted_ttft_seconds_bucket{model_name="M"}[4s])))',
    "sum(rate(llm_d_epp_request_predicted_tpot_seconds_sum[4s]))"
    " / sum(rate(llm_d_epp_request_predicted_tpot_seconds_count[4s]))",
    "sum(rate(llm_d_epp_request_ttft_seconds_sum[4s])) / sum(rate(llm_d_epp_request_ttft_seconds_count[4s]))",
    "histogram_quantile(0.9, sum by (le) (rate(llm_d_epp_request_ntpot_seconds_bucket[4s])))",
    "sum by (type) (rate(llm_d_epp_request_slo_violation_total[4s]))",
    "histogram_quantile(0.9, sum by (le) (rate(inference_objective_request_predicted_ttft_seconds_bucket[4s])))",
    "sum(rate(inference_objective_request_ttft_prediction_duration_seconds_count[4s]))",
]


async def test_every_query_of_the_dashboard_and_of_guides_returns_data(loop: Loop, watcher: Prometheus) -> None:
    waiting = {*queries(), *(query.replace("M", MODEL) for query in GUIDES)}
    assert len(waiting) > 30

    def all_answered() -> bool:
        waiting.difference_update({query for query in waiting if watcher.query(query)})
        return not waiting

    async with traffic(loop.config):
        try:
            await until_true(all_answered, 40)
        except AssertionError:
            raise AssertionError("\n".join(["no data for:", *sorted(waiting)])) from None
