"""SLO-aware routing as it is documented: values, containers, ports and defaults."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helm.release import CHART, CUSTOM_VALUES, SLO_VALUES, Release, arguments, env, helm, mounts, render

STAGING = "us-central1-docker.pkg.dev/k8s-staging-images/gateway-api-inference-extension"
FIVE = ["epp", "training-server", "prediction-server-1", "prediction-server-2", "prediction-server-3"]
SIDECARS = {"sidecars.trainingServer.enabled": True, "sidecars.predictionServers.enabled": True}


@pytest.fixture(scope="module")
def slo() -> Release:
    return render(files=[SLO_VALUES])


@pytest.fixture(scope="module")
def custom() -> Release:
    return render(files=[CUSTOM_VALUES])


def test_the_quick_start_installs_a_pool_by_one_label_and_the_example() -> None:
    release = render(
        files=[SLO_VALUES], sets=["inferencePool.modelServers.matchLabels.app=my-model-server"], labels=False
    )
    pool = release.one("InferencePool", "my-slo-pool")["spec"]
    assert pool["selector"]["matchLabels"] == {"app": "my-model-server"}
    assert pool["endpointPickerRef"] == {
        "name": "my-slo-pool-epp",
        "port": {"number": 9002},
        "failureMode": "FailClose",
    }
    assert list(release.containers) == FIVE


@pytest.mark.parametrize("files", [[SLO_VALUES], [CUSTOM_VALUES]], ids=["example", "custom"])
def test_both_value_files_make_one_pod_of_five_containers(files: list[Path]) -> None:
    release = render(files=files)
    assert list(release.containers) == FIVE
    assert release.deployment["spec"]["replicas"] == 1


def test_custom_images_flags_and_variables_arrive(custom: Release) -> None:
    images = {name: container["image"] for name, container in custom.containers.items()}
    assert images["epp"] == "quay.io/your-org/epp:slo-experimental"
    assert images["training-server"] == "quay.io/your-org/latency-training:latest"
    assert {images[name] for name in FIVE[2:]} == {"quay.io/your-org/latency-prediction:latest"}
    assert {"--enable-latency-predictor=true", "--v=4"} < set(custom.args)
    variables = env(custom.containers["epp"])
    assert variables["PREDICTION_SERVER_URL"] == "http://localhost:8001,http://localhost:8002,http://localhost:8003"
    assert variables["TRAINING_SERVER_URL"] == "http://localhost:8000"
    assert variables["LATENCY_MAX_SAMPLE_SIZE"] == "10000"


def test_custom_resources_arrive(custom: Release) -> None:
    assert custom.containers["training-server"]["resources"] == {
        "requests": {"cpu": "2000m", "memory": "4Gi"},
        "limits": {"cpu": "4000m", "memory": "8Gi"},
    }
    assert custom.containers["prediction-server-2"]["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"cpu": "1000m", "memory": "2Gi"},
    }


def test_the_one_custom_plugin_file_is_the_one_that_is_used(custom: Release) -> None:
    assert "--config-file=/config/slo-plugins.yaml" in custom.args
    assert set(custom.one("ConfigMap", "my-slo-pool-epp")["data"]) == {"default-plugins.yaml", "slo-plugins.yaml"}
    assert mounts(custom.containers["epp"])["plugins-config-volume"]["mountPath"] == "/config"


def test_the_service_has_the_documented_ports(slo: Release) -> None:
    assert list(slo.service_ports.values()) == [9002, 9090, 8000, 8001, 8002, 8003]


def test_without_sidecars_there_are_two_ports_and_one_container() -> None:
    release = render()
    assert list(release.service_ports.values()) == [9002, 9090]
    assert list(release.containers) == ["epp"]
    assert not release.has("ConfigMap", "latency-predictor-config")
    assert not release.has("ConfigMap", "prediction-server-config")
    assert not any(arg.startswith("--enable-latency-predictor") for arg in release.args)


@pytest.mark.parametrize("enabled", ["trainingServer", "predictionServers"])
def test_each_kind_of_sidecar_stands_alone(enabled: str) -> None:
    release = render({f"sidecars.{enabled}.enabled": True})
    of_trainer = enabled == "trainingServer"
    assert list(release.containers) == (FIVE[:2] if of_trainer else [FIVE[0], *FIVE[2:]])
    assert list(release.service_ports.values()) == [9002, 9090, *([8000] if of_trainer else [8001, 8002, 8003])]
    assert release.has("ConfigMap", "latency-predictor-config") == of_trainer
    assert release.has("ConfigMap", "prediction-server-config") != of_trainer
    # Rows and predictions go together: without prediction servers the picker's predictor stays off.
    assert ("--enable-latency-predictor=true" in release.args) != of_trainer


@pytest.mark.parametrize("replicas", [1, 3, 7])
def test_ports_and_urls_follow_the_number_of_prediction_servers(replicas: int) -> None:
    release = render({**SIDECARS, "sidecars.predictionServers.replicas": replicas})
    ports = [8001 + index for index in range(replicas)]
    assert list(release.service_ports.values())[3:] == ports
    assert env(release.containers["epp"])["PREDICTION_SERVER_URL"].split(",") == [
        f"http://localhost:{port}" for port in ports
    ]
    for number, port in enumerate(ports, 1):
        container = release.containers[f"prediction-server-{number}"]
        assert env(container)["PREDICT_PORT"] == str(port)
        assert [one["containerPort"] for one in container["ports"]] == [port]
        assert env(container)["TRAINING_SERVER_URL"] == "http://localhost:8000"


@pytest.mark.parametrize(
    ("container", "image"), [("training-server", "latency-training"), ("prediction-server-1", "latency-prediction")]
)
def test_images_are_the_documented_ones_by_default(container: str, image: str) -> None:
    assert render(SIDECARS).containers[container]["image"] == f"{STAGING}/{image}:latest"


def test_settings_are_the_documented_ones_by_default() -> None:
    release = render(SIDECARS)
    assert release.one("ConfigMap", "latency-predictor-config")["data"] == {
        "MODEL_STORE": "/models",
        "LATENCY_RETRAINING_INTERVAL_SEC": "1",
        "LATENCY_MIN_SAMPLES_FOR_RETRAIN": "100",
        "LATENCY_MODEL_TYPE": "xgboost",
    }
    assert release.one("ConfigMap", "prediction-server-config")["data"] == {
        "MODEL_STORE": "/models",
        "MODEL_SYNC_INTERVAL_SEC": "10",
        "LATENCY_MODEL_TYPE": "xgboost",
    }
    assert not release.has("PersistentVolumeClaim")


@pytest.mark.parametrize("place", ["sidecars", "inferenceExtension.sidecars"])
def test_sidecars_may_be_given_in_either_place(place: str) -> None:
    release = render(
        {
            f"{place}.trainingServer.enabled": True,
            f"{place}.trainingServer.config.retrainingIntervalSec": 2.5,
            f"{place}.trainingServer.config.minSamplesForRetrain": 10000000,
            f"{place}.trainingServer.image.tag": "mine",
            f"{place}.predictionServers.enabled": True,
            f"{place}.predictionServers.config.modelSyncIntervalSec": 3,
        }
    )
    trainer = release.one("ConfigMap", "latency-predictor-config")["data"]
    assert (trainer["LATENCY_RETRAINING_INTERVAL_SEC"], trainer["LATENCY_MIN_SAMPLES_FOR_RETRAIN"]) == (
        "2.5",
        "10000000",
    )
    assert release.containers["training-server"]["image"] == f"{STAGING}/latency-training:mine"
    assert release.one("ConfigMap", "prediction-server-config")["data"]["MODEL_SYNC_INTERVAL_SEC"] == "3"


def test_top_level_sidecars_override_single_keys() -> None:
    release = render(
        {
            "inferenceExtension.sidecars": {
                "trainingServer": {"enabled": True, "config": {"minSamplesForRetrain": 7, "modelType": "lightgbm"}}
            },
            "sidecars": {"trainingServer": {"config": {"minSamplesForRetrain": 8}}},
        }
    )
    data = release.one("ConfigMap", "latency-predictor-config")["data"]
    assert (data["LATENCY_MIN_SAMPLES_FOR_RETRAIN"], data["LATENCY_MODEL_TYPE"]) == ("8", "lightgbm")


def test_users_urls_override_the_charts() -> None:
    given = {"PREDICTION_SERVER_URL": "http://predictors:80", "TRAINING_SERVER_URL": "http://trainer:80"}
    release = render({**SIDECARS, "inferenceExtension.env": given})
    variables = [one["name"] for one in release.containers["epp"]["env"]]
    assert len(variables) == len(set(variables))
    assert given.items() <= env(release.containers["epp"]).items()


def test_containers_read_their_settings_from_the_config_maps(slo: Release) -> None:
    maps = {
        name: [source["configMapRef"]["name"] for source in container.get("envFrom", ())]
        for name, container in slo.containers.items()
    }
    assert maps == {
        "epp": [],
        "training-server": ["latency-predictor-config"],
        **{name: ["prediction-server-config"] for name in FIVE[2:]},
    }


def test_two_releases_fit_in_one_namespace() -> None:
    def named(release: str, **more: Any) -> set[str]:
        return set(render({**SIDECARS, **more}, name=release).names)

    other = {
        "sidecars.trainingServer.configMapName": "b-training",
        "sidecars.predictionServers.configMapName": "b-predict",
    }
    assert named("a") & named("b") == {"ConfigMap latency-predictor-config", "ConfigMap prediction-server-config"}
    assert not named("a") & named("b", **other)


def test_notes_name_the_commands_to_try() -> None:
    out = helm("install", "my-slo-pool", CHART, "--dry-run=client", "-n", "inference", *arguments(files=[SLO_VALUES]))
    notes = out[out.index("NOTES:") :]
    for part in ("pod of 5 containers", "kubectl get pods -n inference", "-c epp", "-c training-server", "helm test"):
        assert part in notes, json.dumps(notes)
    assert "ready without any model" in notes
