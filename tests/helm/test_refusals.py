"""The chart refuses wrong values, and each error names the value."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.helm.release import CHART, HelmError, render


def keys(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the paths of all objects among the default values."""
    yield prefix
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from keys(value, f"{prefix}.{key}" if prefix else key)


# Objects whose keys the user chooses.
_FREE = {
    "monitoring.grafanaDashboard.labels",
    *(
        f"{place}resources.{kind}"
        for place in (
            "inferenceExtension.",
            "inferenceExtension.sidecars.trainingServer.",
            "inferenceExtension.sidecars.predictionServers.",
            "standalone.proxy.",
        )
        for kind in ("requests", "limits")
    ),
    # Kubernetes defines and checks these two objects.
    "podSecurityContext.seccompProfile",
    "securityContext.capabilities",
}
_DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.mark.parametrize("place", [one for one in keys(_DEFAULTS) if one not in _FREE])
def test_a_typo_in_a_key_is_named(place: str) -> None:
    with pytest.raises(HelmError) as refused:
        render({f"{place}.typpo" if place else "typpo": 1})
    assert "'typpo' not allowed" in str(refused.value)
    assert f"'/{place.replace('.', '/')}'" in str(refused.value).replace("at ''", "at '/'")


@pytest.mark.parametrize(
    "place",
    ["sidecars", "sidecars.trainingServer", "sidecars.predictionServers.config", "sidecars.trainingServer.image"],
)
def test_typos_in_the_top_level_sidecars_are_named(place: str) -> None:
    with pytest.raises(HelmError, match=rf"'/{place.replace('.', '/')}': additional properties 'typpo' not allowed"):
        render({f"{place}.typpo": 1})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("inferenceExtension.replicas", "two", "got string, want integer"),
        ("inferenceExtension.replicas", -1, "minimum"),
        ("inferenceExtension.extProcPort", 70000, "maximum"),
        ("inferenceExtension.failureMode", "FailOften", "value must be one of"),
        ("inferenceExtension.latencyClient", "local", "value must be one of"),
        ("inferenceExtension.enableLeaderElection", "yes", "got string, want boolean"),
        ("inferenceExtension.flags", [{"nam": "v"}], "additional properties 'nam' not allowed"),
        ("inferenceExtension.flags", [{"value": 1}], "missing property 'name'"),
        ("inferenceExtension.flags", [{"name": "V LEVEL"}], "does not match pattern"),
        ("inferenceExtension.env", [{"name": "A", "vlaue": 1}], "'vlaue' not allowed"),
        ("inferenceExtension.image.pullPolicy", "Sometimes", "value must be one of"),
        ("inferenceExtension.pluginsCustomConfig", {"../a.yaml": ""}, "'../a.yaml' not allowed"),
        ("inferenceExtension.defaultObjectives", [{"model": "m"}], "missing property 'ttftMs'"),
        ("inferenceExtension.defaultObjectives", [{"tpotMs": 0}], "exclusiveMinimum"),
        ("inferenceExtension.resources.request", {}, "'request' not allowed"),
        ("inferenceExtension.tolerations", [{"effects": "NoSchedule"}], "'effects' not allowed"),
        ("sidecars.predictionServers.replicas", 0, "minimum"),
        ("sidecars.trainingServer.config.modelType", "forest", "value must be one of"),
        ("sidecars.trainingServer.config.quantileAlpha", 1, "quantileAlpha"),
        ("sidecars.trainingServer.config.retrainingIntervalSec", 0, "retrainingIntervalSec"),
        ("sidecars.trainingServer.persistence.size", "lots", "does not match pattern"),
        ("sidecars.trainingServer.persistence.accessModes", ["ReadOnlyMany"], "value must be one of"),
        ("modelStore.s3.url", "https://bucket", "does not match pattern"),
        ("inferencePool.apiVersion", "v1", "value must be one of"),
        ("inferencePool.targetPorts", [], "minItems"),
        ("inferencePool.modelServerType", "tgi", "value must be one of"),
        ("provider.name", "aws", "value must be one of"),
        ("standalone.proxy.messageTimeout", "soon", "does not match pattern"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(key: str, value: object, message: str) -> None:
    with pytest.raises(HelmError) as refused:
        render({key: value})
    assert message in str(refused.value)
    assert f"/{key.replace('.', '/')}".removesuffix("/request") in str(refused.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inferenceExtension.enableLeaderElection": True, "standalone.enabled": True}, "exclude each other"),
        (
            {"inferenceExtension.enableLeaderElection": True, "inferenceExtension.autoscaling.enabled": True},
            "exclude each other",
        ),
        (
            {"inferenceExtension.autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 2}},
            "maxReplicas is smaller",
        ),
        (
            {"inferenceExtension.metricsPort": 8002, "sidecars.predictionServers.enabled": True},
            r"port 8002 of the pod is wanted twice, by inferenceExtension\.metricsPort and by prediction server 2",
        ),
        (
            {"standalone.enabled": True, "standalone.proxy.port": 9090},
            r"port 9090 .* by inferenceExtension\.metricsPort and by standalone\.proxy\.port",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(HelmError, match=message):
        render(values)


@pytest.mark.parametrize(
    "key",
    [
        "inferenceExtension",
        "inferenceExtension.image",
        "inferenceExtension.sidecars",
        "inferenceExtension.sidecars.trainingServer.config",
        "inferenceExtension.sidecars.predictionServers.replicas",
        "modelStore.s3",
        "standalone.proxy",
    ],
)
def test_required_values_cannot_be_removed(key: str) -> None:
    with pytest.raises(HelmError, match=f"missing property '{key.rpartition('.')[2]}'"):
        render(sets=[f"{key}=null"])


def test_optional_values_can_be_removed() -> None:
    keys = ("resources", "flags", "tolerations", "affinity", "podLabels", "podAnnotations", "pluginsCustomConfig")
    more = ("sidecars", "podSecurityContext", "inferenceExtension.service.annotations")
    release = render(sets=[*(f"inferenceExtension.{key}=null" for key in keys), *(f"{key}=null" for key in more)])
    assert release.containers["epp"]["resources"] is None
