"""The picker's own parser understands the flags, variables and plugin files that the chart renders."""

from typing import Any

import click
import pytest

from epp.flags import double_dashes
from epp.options import options
from epp.request.default_objectives import Rule, read_default_objectives
from epp.scheduling.configuration.config import DEFAULT_CONFIG, load_scheduler
from epp.scheduling.plugins.slo import SloScorer
from tests.helm.release import SLO_VALUES, HelmError, Release, env, render

SIDECARS = {"sidecars.trainingServer.enabled": True, "sidecars.predictionServers.enabled": True}
FILE = (
    "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: queue-scorer\n"
)


def parsed(release: Release) -> dict[str, Any]:
    """Return the release's arguments as the picker parses them."""

    @click.command()
    @options
    def command(**given: Any) -> dict[str, Any]:
        return given

    result = command.main(double_dashes(release.args), standalone_mode=False)
    assert isinstance(result, dict)
    return result


def flagged(*flags: dict[str, Any], **values: Any) -> dict[str, Any]:
    return parsed(render({**values, "inferenceExtension.flags": list(flags)}))


@pytest.mark.parametrize(
    "values",
    [
        {},
        SIDECARS,
        {"inferenceExtension.enableLeaderElection": True, "inferenceExtension.replicas": 2},
        {"standalone.enabled": True},
        {"inferencePool.create": False},
        {"inferenceExtension.latencyClient": "embedded"},
        {"inferenceExtension.metricsEndpointAuth": True, "inferenceExtension.tls.existingSecret": "certificate"},
        {"inferencePool.apiVersion": "inference.networking.x-k8s.io/v1alpha2"},
    ],
)
def test_the_picker_understands_every_argument(values: dict[str, Any]) -> None:
    release = render(values)
    assert all(arg.startswith("--") and "=" in arg for arg in release.args)
    given = parsed(release)
    assert (given["pool_name"], given["pool_namespace"]) == ("my-slo-pool", "inference")


@pytest.mark.parametrize("value", [True, "true", False, "false"])
def test_switches_may_be_booleans_or_texts(value: bool | str) -> None:
    given = flagged({"name": "secure-serving", "value": value}, {"name": "v", "value": 3})
    assert given["secure_serving"] is (str(value).lower() == "true")
    # As two words, Go's parser and its imitations would stop at a switch's value and miss the next flag.
    assert given["v"] == 3


def test_a_flag_without_a_value_is_true() -> None:
    assert flagged({"name": "tracing"})["tracing"] is True


@pytest.mark.parametrize("name", ["latency-max-sample-size", "--latency-max-sample-size", "-latency-max-sample-size"])
def test_large_numbers_and_dashes_survive(name: str) -> None:
    assert flagged({"name": name, "value": 10000000})["latency_max_sample_size"] == 10_000_000


def test_fractions_survive() -> None:
    assert flagged({"name": "latency-flush-interval-sec", "value": 0.25})["latency_flush_interval_sec"] == 0.25


def test_users_flags_override_the_charts_own() -> None:
    given = flagged(
        {"name": "enable-latency-predictor", "value": False}, {"name": "zap-encoder", "value": "console"}, **SIDECARS
    )
    assert (given["enable_latency_predictor"], given["zap_encoder"]) == (False, "console")


def test_ports_agree_in_all_objects() -> None:
    ports = {"extProcPort": 19002, "grpcHealthPort": 19003, "metricsPort": 19090}
    release = render({f"inferenceExtension.{name}": port for name, port in ports.items()})
    given, epp = parsed(release), release.containers["epp"]
    assert (given["grpc_port"], given["grpc_health_port"], given["metrics_port"]) == (19002, 19003, 19090)
    assert {port["name"]: port["containerPort"] for port in epp["ports"]} == {
        "grpc": 19002,
        "grpc-health": 19003,
        "metrics": 19090,
    }
    assert release.service_ports == {"grpc-ext-proc": 19002, "http-metrics": 19090}
    assert release.one("InferencePool")["spec"]["endpointPickerRef"]["port"]["number"] == 19002
    assert {epp[f"{probe}Probe"]["grpc"]["port"] for probe in ("startup", "liveness", "readiness")} == {19003}


@pytest.mark.parametrize("flag", ["grpc-port", "grpc-health-port", "metrics-port"])
def test_ports_are_refused_as_flags(flag: str) -> None:
    with pytest.raises(HelmError, match=f"{flag} is inferenceExtension"):
        flagged({"name": flag, "value": 1})


@pytest.mark.parametrize(
    "given",
    [
        [{"name": "COUNT", "value": "10000000"}, {"name": "SHARE", "value": "0.2"}, {"name": "ON", "value": "true"}],
        [{"name": "COUNT", "value": 10000000}, {"name": "SHARE", "value": 0.2}, {"name": "ON", "value": True}],
        {"COUNT": 10000000, "SHARE": 0.2, "ON": True},
        {"COUNT": "10000000", "SHARE": "0.2", "ON": "true"},
    ],
)
@pytest.mark.parametrize(
    ("key", "container"),
    [
        ("inferenceExtension.env", "epp"),
        ("sidecars.trainingServer.env", "training-server"),
        ("sidecars.predictionServers.env", "prediction-server-3"),
    ],
)
def test_variables_are_texts_whether_given_as_list_or_map(given: object, key: str, container: str) -> None:
    found = env(render({**SIDECARS, key: given}).containers[container])
    assert {"COUNT": "10000000", "SHARE": "0.2", "ON": "true"}.items() <= found.items()


def test_variables_may_come_from_elsewhere() -> None:
    secret = {"secretKeyRef": {"name": "secret", "key": "token"}}
    for given in ([{"name": "TOKEN", "valueFrom": secret}], {"TOKEN": {"valueFrom": secret}}):
        assert env(render({"inferenceExtension.env": given}).containers["epp"])["TOKEN"] == secret


def test_the_picker_gets_its_pods_name_and_namespace() -> None:
    variables = env(render().containers["epp"])
    assert variables["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert variables["NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}


def test_default_plugins_are_the_pickers_own() -> None:
    release = render()
    assert release.one("ConfigMap", "my-slo-pool-epp")["data"] == {"default-plugins.yaml": DEFAULT_CONFIG}
    assert "--config-file=/config/default-plugins.yaml" in release.args


@pytest.mark.parametrize(
    ("files", "named", "used"),
    [
        (["a.yaml"], "", "a.yaml"),
        (["a.yaml", "b.yaml"], "", "default-plugins.yaml"),
        (["a.yaml", "b.yaml"], "b.yaml", "b.yaml"),
        (["a.yaml"], "default-plugins.yaml", "default-plugins.yaml"),
        (["default-plugins.yaml"], "", "default-plugins.yaml"),
    ],
)
def test_the_plugin_file_is_chosen(files: list[str], named: str, used: str) -> None:
    given = dict.fromkeys(files, FILE)
    release = render({"inferenceExtension.pluginsCustomConfig": given, "inferenceExtension.pluginsConfigFile": named})
    data = release.one("ConfigMap", "my-slo-pool-epp")["data"]
    assert f"--config-file=/config/{used}" in release.args
    assert data.keys() == {*files, "default-plugins.yaml"}
    assert given.items() <= data.items()


def test_a_missing_plugin_file_is_refused() -> None:
    with pytest.raises(HelmError, match=r"pluginsConfigFile: there is no slo\.yaml among .*\(a\.yaml\)"):
        render(
            {
                "inferenceExtension.pluginsConfigFile": "slo.yaml",
                "inferenceExtension.pluginsCustomConfig": {"a.yaml": FILE},
            }
        )


def test_default_objectives_reach_the_picker_as_a_file() -> None:
    rules = [{"model": "m", "headers": {"x-tier": "gold"}, "ttftMs": 200}, {"tpotMs": 20.5}]
    release = render({"inferenceExtension.defaultObjectives": rules})
    assert "--default-objectives-file=/config/default-objectives.yaml" in release.args
    assert "--config-file=/config/default-plugins.yaml" in release.args
    text = release.one("ConfigMap", "my-slo-pool-epp")["data"]["default-objectives.yaml"]
    assert read_default_objectives(text) == (
        Rule(model="m", headers={"x-tier": "gold"}, ttft_ms=200),
        Rule(tpot_ms=20.5),
    )


def test_the_examples_plugins_are_what_slo_aware_routing_needs() -> None:
    text = render(files=[SLO_VALUES]).one("ConfigMap", "my-slo-pool-epp")["data"]["slo-plugins.yaml"]
    scheduler = load_scheduler(text, {})
    assert set(scheduler.profiles) == {"default", "slo"}
    assert not scheduler.notices
    assert [scorer.name for scorer in scheduler.profiles["slo"].scorers if scorer.weight] == ["slo-scorer"]


def test_the_picker_gets_the_type_of_model_server() -> None:
    assert parsed(render({"inferencePool.modelServerType": "triton-tensorrt-llm"}))["model_server_type"] == (
        "triton-tensorrt-llm"
    )


def test_without_variables_the_picker_has_the_documented_defaults() -> None:
    given = parsed(render())
    assert given["prediction_server_url"] == "http://localhost:8001,http://localhost:8002,http://localhost:8003"
    assert given["training_server_url"] == "http://localhost:8000"
    assert given["latency_max_sample_size"] == 10_000
    (scorer,) = (one.scorer for one in load_scheduler(DEFAULT_CONFIG, {}).profiles["slo"].scorers if one.weight)
    assert isinstance(scorer, SloScorer)
    assert (scorer.neg_headroom_tpot_weight, scorer.neg_headroom_ttft_weight) == (0.2, 0.8)


def test_the_weights_of_the_example_reach_the_scorer() -> None:
    release = render(files=[SLO_VALUES], sets=["inferenceExtension.env[1].value=0.4"])
    variables = {name: value for name, value in env(release.containers["epp"]).items() if isinstance(value, str)}
    assert variables["NEG_HEADROOM_TPOT_WEIGHT"] == "0.4"
    text = release.one("ConfigMap", "my-slo-pool-epp")["data"]["slo-plugins.yaml"]
    (scorer,) = (one.scorer for one in load_scheduler(text, variables).profiles["slo"].scorers if one.weight)
    assert isinstance(scorer, SloScorer)
    assert (scorer.neg_headroom_tpot_weight, scorer.neg_headroom_ttft_weight) == (0.4, 0.8)
