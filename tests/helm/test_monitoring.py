"""The programs really serve every metric that the alerts and the dashboard use."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from epp.exceptions import BadRequestError, NoEndpointError, ShedError
from tests.helm.release import CHART, Object, Release, render
from tests.metrics_pages import metrics_pages

SIDECARS = {"sidecars.trainingServer.enabled": True, "sidecars.predictionServers.enabled": True}
RULE = {"monitoring.prometheusRule.enabled": True}
ELECTION = {"inferenceExtension.enableLeaderElection": True}
# A metric's name stands before its labels in braces. A function's name stands before a parenthesis.
_METRIC = re.compile(r"\b([a-zA-Z_:][\w:]*)\{")
_SAMPLE = re.compile(r"_(bucket|sum|count)$")


def alerts(values: dict[str, Any]) -> dict[str, Object]:
    groups = render({**RULE, **values}).one("PrometheusRule")["spec"]["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def panels() -> list[Object]:
    found = json.loads((CHART / "dashboards" / "headroom.json").read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def asked_for() -> set[str]:
    """Return the metrics that alerts and panels use."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    alerting = [rule["expr"] for rule in alerts({**SIDECARS, **ELECTION}).values()]
    return {name for expression in (*shown, *alerting) for name in _METRIC.findall(expression)}


def families(page: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))


def test_a_damaged_store_raises_an_alert_where_there_is_a_trainer() -> None:
    rule = alerts(SIDECARS)["HeadroomStoreDamaged"]
    assert set(_METRIC.findall(rule["expr"])) == {
        "headroom_trainer_store_repairs_total",
        "headroom_trainer_store_replacements_total",
    }
    assert "HeadroomStoreDamaged" not in alerts({"sidecars.predictionServers.enabled": True})


@pytest.mark.slow
@pytest.mark.xdist_group("metrics_pages")
def test_every_metric_in_alerts_and_panels_is_served(tmp_path: Path) -> None:
    served = {name for page in metrics_pages(tmp_path).values() for name in families(page)}
    asked = asked_for()
    assert len(asked) > 30
    assert {name for name in asked if not {name, _SAMPLE.sub("", name)} & served} == set()


def test_the_refusals_of_an_alert_match_the_pickers_codes() -> None:
    counted = {error.code for error in (BadRequestError(""), NoEndpointError(), ShedError("", None))}
    asked = {code for rule in alerts(SIDECARS).values() for code in re.findall(r'\bcode="(.*?)"', rule["expr"])}
    assert asked
    assert asked <= counted


def test_every_alert_says_what_to_do() -> None:
    for name, rule in alerts({**SIDECARS, **ELECTION}).items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert len(rule["annotations"]["summary"]) > 20, name
        assert len(rule["annotations"]["runbook"]) > 40, name


def test_alerts_cover_only_installed_parts() -> None:
    plain, whole = alerts({}), alerts({**SIDECARS, **ELECTION})
    assert plain.keys() < whole.keys()
    assert not any("trainer" in rule["expr"] or "predictor" in rule["expr"] for rule in plain.values())
    assert "HeadroomNoLeader" in whole.keys() - alerts(SIDECARS).keys()


def test_alerts_cover_only_this_release() -> None:
    for rule in alerts(SIDECARS).values():
        selectors = re.findall(r"\{(.*?)\}", rule["expr"])
        assert selectors
        for selector in selectors:
            assert 'namespace="inference"' in selector
            assert 'pod=~"(my-slo-pool-epp|my-slo-pool-training)-.*"' in selector


def test_the_age_limit_of_models_is_a_value() -> None:
    rule = alerts({**SIDECARS, "monitoring.prometheusRule.oldestModelSeconds": 10000000})["HeadroomModelsOld"]
    assert rule["expr"].endswith("> 10000000")


def test_grafana_can_read_the_dashboard() -> None:
    values = {"monitoring.grafanaDashboard.enabled": True}
    config = render(values).one("ConfigMap", "my-slo-pool-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    ((name, text),) = config["data"].items()
    assert name == "inference-my-slo-pool-headroom.json"
    dashboard = json.loads(text)
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)
    variables = {one["name"] for one in dashboard["templating"]["list"]}
    assert variables == {"datasource", "namespace", "pod"}


def scraped(release: Release, kind: str) -> list[tuple[str, str]]:
    key = {"PodMonitor": "podMetricsEndpoints", "ServiceMonitor": "endpoints"}[kind]
    return [(one["port"], one["path"]) for one in release.one(kind)["spec"][key]]


def test_a_pod_monitor_reads_every_container() -> None:
    release = render({**SIDECARS, "standalone.enabled": True, "monitoring.podMonitor.enabled": True})
    names = {port["name"] for container in release.containers.values() for port in container["ports"]}
    wanted = scraped(release, "PodMonitor")
    assert {port for port, _ in wanted} == names - {"grpc", "grpc-health", "proxy"}
    assert ("proxy-stats", "/stats/prometheus") in wanted


def test_a_service_monitor_reads_every_metrics_port_of_services() -> None:
    fleet = {"inferenceExtension.replicas": 2, "modelStore.s3.url": "s3://models"}
    for values in (SIDECARS, {**SIDECARS, **fleet}):
        release = render({**values, "monitoring.serviceMonitor.enabled": True})
        names = {port["name"] for service in release.find("Service") for port in service["spec"]["ports"]}
        assert {port for port, _ in scraped(release, "ServiceMonitor")} == names - {"grpc-ext-proc"}
        wanted = release.one("ServiceMonitor")["spec"]["selector"]["matchLabels"]
        assert all(wanted.items() <= service["metadata"]["labels"].items() for service in release.find("Service"))


def test_guarded_metrics_are_read_with_a_token() -> None:
    values = {"monitoring.podMonitor.enabled": True, "monitoring.bearerTokenSecret.name": "reader"}
    endpoint, *others = render({**SIDECARS, **values}).one("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"] == {"type": "Bearer", "credentials": {"name": "reader", "key": "token"}}
    assert not any("authorization" in other for other in others)
