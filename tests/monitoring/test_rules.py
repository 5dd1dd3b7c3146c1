"""Each alert of the chart fires and ends at the chart's own times, in the virtual time of Prometheus' promtool."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.metrics_pages import metrics_pages
from tests.monitoring.conftest import chart_rules
from tests.monitoring.prometheus import NAMESPACE, POD, program

pytestmark = pytest.mark.xdist_group("metrics_pages")


@dataclass(frozen=True)
class Case:
    """Series by minute, in promtool's notation, and minutes: within the condition, and after it. At 5 all is well."""

    alert: str
    series: dict[str, str]
    fires_at: int = 65
    ended_at: int = 140


# From minute 10 to 71 a gauge is wrong, or a counter rises.
WRONG, ZERO, RISING = "0x9 1x60 0x90", "1x9 0x60 1x90", "0x9 0+60x60 3600x90"
# A counter that rises once.
ONCE = "0x9 1x150"
STEADY = "0+60x160"

CASES = [
    Case("HeadroomNoEndpoints", {'inference_pool_ready_pods{name="pool"}': ZERO}),
    Case("HeadroomPickerAbsent", {'inference_extension_info{build_ref="1", commit="1"}': "1x9 _x60 1x90"}),
    Case("HeadroomNoLeader", {"headroom_epp_is_leader": ZERO}),
    Case("HeadroomRefusals", {'headroom_epp_refused_requests_total{code="ServiceUnavailable"}': RISING}),
    Case("HeadroomStaleEndpoints", {"headroom_epp_scrape_stale_endpoints": WRONG}),
    Case("HeadroomKubernetesFailures", {"headroom_epp_kubernetes_failures_total": RISING}),
    Case("HeadroomConfigurationRefused", {"headroom_epp_config_reload_failures_total": ONCE}, fires_at=15),
    Case("HeadroomOverloaded", {"headroom_epp_overload_level": WRONG}),
    Case(
        "HeadroomFallback",
        {
            'headroom_epp_decisions_total{profile="default", source="fallback"}': RISING,
            'headroom_epp_decisions_total{profile="slo", source="remote"}': STEADY,
        },
    ),
    Case("HeadroomPredictionServerPaused", {'headroom_epp_prediction_server_paused{url="http://a"}': WRONG}),
    Case("HeadroomRowsLost", {'headroom_epp_training_rows_dropped_total{reason="full"}': RISING}),
    Case("HeadroomTrainingFails", {'headroom_trainer_failures_total{stage="publish"}': RISING}),
    Case("HeadroomStoreDamaged", {"headroom_trainer_store_repairs_total": ONCE}, fires_at=15),
    Case("HeadroomStoreDamaged", {"headroom_trainer_store_replacements_total": ONCE}, fires_at=15),
    # Something was published at minute 90.
    Case(
        "HeadroomModelsRefused",
        {
            'headroom_trainer_refusals_total{model="ttft", reason="worse"}': RISING,
            "headroom_trainer_last_publication_timestamp_seconds": "0x89 5400x70",
        },
        fires_at=70,
        ended_at=100,
    ),
    Case("HeadroomModelsOld", {"headroom_predictor_generation_age_seconds": "5x9 3601x60 5x90"}),
    Case("HeadroomModelsDontLoad", {"headroom_predictor_load_failing": WRONG}),
]


def labelled(series: str) -> str:
    """Return the series with the labels that a scrape of a pod adds."""
    name, _, labels = series.rstrip("}").partition("{")
    pod = f'namespace="{NAMESPACE}", pod="{POD}", instance="10.0.0.1:9090"'
    return f"{name}{{{', '.join(filter(None, (labels, pod)))}}}"


def unit_test(case: Case) -> dict[str, Any]:
    def firing(minute: int, *, is_expected: bool) -> dict[str, Any]:
        counted = f'count(ALERTS{{alertname="{case.alert}", alertstate="firing"}})'
        samples = [{"labels": "{}", "value": 1}] if is_expected else []
        return {"expr": counted, "eval_time": f"{minute}m", "exp_samples": samples}

    checks = [(5, False), (case.fires_at, True), (case.ended_at, False)]
    return {
        "interval": "1m",
        "input_series": [{"series": labelled(name), "values": values} for name, values in case.series.items()],
        "promql_expr_test": [firing(minute, is_expected=expected) for minute, expected in checks],
    }


def promtool(*arguments: str) -> None:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_under_its_condition_and_ends_with_it(tmp_path: Path) -> None:
    rules = chart_rules()
    assert {case.alert for case in CASES} == {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [unit_test(case) for case in CASES]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    promtool("check", "rules", str(tmp_path / "rules.yaml"))
    promtool("test", "rules", str(tmp_path / "tests.yaml"))


@pytest.mark.slow
def test_the_series_of_these_tests_are_those_of_the_servers(tmp_path: Path) -> None:
    page = "\n".join(metrics_pages(tmp_path).values())
    for case in CASES:
        for series in case.series:
            name, _, labels = series.rstrip("}").partition("{")
            told = re.findall(rf"^{name}(?:\{{(.*)\}})? ", page, re.MULTILINE)
            if name == "headroom_epp_decisions_total" or "server_paused" in name:
                # Nothing was decided, and nobody asked for predictions.
                assert f"# TYPE {name} " in page
                continue
            assert told, name
            assert set(re.findall(r"(\w+)=", told[0])) == set(re.findall(r"(\w+)=", labels)), name
