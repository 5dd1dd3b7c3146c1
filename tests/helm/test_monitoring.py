"""Alerts and dashboard: whatever they ask for is a metric that the programs really have."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from tests.helm.release import CHART, Object, Release, render

ROOT = Path(__file__).parents[2]
SIDECARS = {"sidecars.trainingServer.enabled": True, "sidecars.predictionServers.enabled": True}
RULE = {"monitoring.prometheusRule.enabled": True}
# A word before its labels: a function has a bracket there.
_METRIC = re.compile(r"\b([a-zA-Z_:][\w:]*)\{")


def alerts(release: Release) -> dict[str, Object]:
    groups = release.one("PrometheusRule")["spec"]["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def dashboard_text() -> str:
    return (CHART / "dashboards" / "headroom.json").read_text()


def expressions() -> list[str]:
    panels = json.loads(dashboard_text())["panels"]
    shown = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    elected = {"inferenceExtension.enableLeaderElection": True}
    return [*shown, *(rule["expr"] for rule in alerts(render({**RULE, **SIDECARS, **elected})).values())]


@pytest.fixture(scope="module")
def metrics() -> set[str]:
    """Every series that the three programs' own code can serve."""
    return {*_pickers(), *_trainers(), *_predictors()}


def _series(page: bytes) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", page.decode(), re.MULTILINE)) | set(
        re.findall(r"^([a-zA-Z_:][\w:]*)[ {]", page.decode(), re.MULTILINE)
    )


def _pickers() -> set[str]: ...
