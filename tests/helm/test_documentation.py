"""docs/helm.md and the pages beside it name values, objects and alerts that exist."""

import json
import re
from pathlib import Path
from typing import Any

from tests.helm.release import CHART, render

DOCS = Path(__file__).parents[2] / "docs"
TEXT = "\n".join((DOCS / page).read_text() for page in ("helm.md", "operate.md", "configure.md"))
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def is_value(path: str) -> bool:
    """Return whether the schema knows this key."""
    place = SCHEMA
    for key in path.split("."):
        place = place.get("properties", {}).get(key)
        if place is None:
            return False
        if "$ref" in place:
            place = SCHEMA["definitions"][place["$ref"].rsplit("/", 1)[1]]
    return True


def test_every_named_value_exists() -> None:
    tops = "|".join(SCHEMA["properties"])
    named = set(re.findall(rf"`((?:{tops})(?:\.\w+)+)", TEXT))
    assert len(named) > 30
    assert {path for path in named if not is_value(path)} == set()


def test_every_setting_of_the_programs_is_documented() -> None:
    kinds = SCHEMA["definitions"]["sidecars"]["properties"]
    for kind in ("trainingServer", "predictionServers"):
        for key in kinds[kind]["properties"]["config"]["properties"]:
            assert f"`{key}`" in TEXT, key


def test_every_alert_is_documented() -> None:
    values = {"monitoring.prometheusRule.enabled": True, "inferenceExtension.enableLeaderElection": True}
    sidecars = {"sidecars.trainingServer.enabled": True, "sidecars.predictionServers.enabled": True}
    groups = render({**values, **sidecars}).one("PrometheusRule")["spec"]["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    assert set(re.findall(r"\bHeadroom\w+", TEXT)) == alerts


def test_the_documented_fleet_renders_as_a_fleet(tmp_path: Path) -> None:
    found = re.search(r"^    inferenceExtension: .*\n    modelStore: .*\n    sidecars: .*$", TEXT, re.MULTILINE)
    assert found
    file = tmp_path / "fleet.yaml"
    file.write_text("\n".join(line[4:] for line in found[0].splitlines()))
    release = render(files=[file])
    assert release.has("Deployment", "my-slo-pool-training")
    assert release.deployment["spec"]["replicas"] == 3


def test_the_tests_named_in_the_documentation_exist() -> None:
    tests = Path(__file__).parents[1]
    named = re.findall(r"`((?:helm|cluster|images)/test_\w+\.py)::(test_\w+)`", TEXT)
    assert len(named) > 25
    assert [f"{file}::{name}" for file, name in named if f"def {name}(" not in (tests / file).read_text()] == []
