"""Render each release of the helmfile as helmfile would, with our chart in place of the registry's."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.release import CHART, SLO_VALUES, Release, helm, render

HELMFILE = CHART.parent / "helmfile.example.yaml"
RELEASES: list[dict[str, Any]] = yaml.safe_load(HELMFILE.read_text())["releases"]


def rendered(release: dict[str, Any], chart: Path) -> Release:
    files = [HELMFILE.parent / one for one in release["values"]]
    return render(files=files, labels=False, name=release["name"], namespace=release["namespace"], chart=chart)


def test_the_release_matches_llm_d() -> None:
    (release,) = RELEASES
    assert release == {
        "name": "gaie-slo",
        "namespace": "llm-d-slo",
        "chart": "oci://quay.io/your-org/charts/inferencepool",
        "version": "v1.0.1-slo",
        "values": ["gaie-slo/values.yaml", "gaie-slo/values-slo.yaml"],
    }


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: str(release["name"]))
def test_each_release_is_rendered_from_the_packaged_chart(release: dict[str, Any], tmp_path: Path) -> None:
    # Helm accepts a version with a leading v and keeps the v in the file's name.
    helm("package", CHART, "--destination", tmp_path, "--version", release["version"])
    (archive,) = tmp_path.glob("*.tgz")
    assert release["version"].removeprefix("v") in archive.name
    found = rendered(release, archive)
    assert len(found.containers) == 5
    assert found.one("InferencePool", "gaie-slo")["spec"]["selector"]["matchLabels"]
    assert {one["metadata"].get("namespace", "llm-d-slo") for one in found.objects} == {"llm-d-slo"}


def test_the_slo_values_equal_the_example() -> None:
    slo = yaml.safe_load((CHART.parent / "gaie-slo" / "values-slo.yaml").read_text())
    assert slo == {"inferenceExtension": yaml.safe_load(SLO_VALUES.read_text())["inferenceExtension"]}
