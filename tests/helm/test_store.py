"""The places of models: a pod's volume, a claim, or a bucket, for one picker or for a fleet with one trainer."""

from typing import Any

import click
import pytest

from predictor.__main__ import main as predictor_main
from tests.helm.release import CUSTOM_VALUES, SLO_VALUES, HelmError, Object, Release, env, mounts, render
from trainer.__main__ import main as trainer_main

SIDECARS = {"sidecars.trainingServer.enabled": True, "sidecars.predictionServers.enabled": True}
PERSISTENCE = "sidecars.trainingServer.persistence"
CLAIM = {f"{PERSISTENCE}.enabled": True}
SHARED = {**CLAIM, f"{PERSISTENCE}.accessModes": ["ReadWriteMany"]}
BUCKET = {
    "modelStore.s3.url": "s3://models/pool",
    "modelStore.s3.region": "eu-west-1",
    "modelStore.s3.endpoint": "https://minio:9000",
    "modelStore.s3.existingSecret": "minio",
}
PREDICTORS = ["prediction-server-1", "prediction-server-2", "prediction-server-3"]


def volume(pod: Object, name: str = "model-store") -> Object:
    found: list[Object] = [one for one in pod["volumes"] if one["name"] == name]
    assert len(found) == 1
    return found[0]


def trainer_pod(release: Release) -> Object:
    spec: Object = release.one("Deployment", "my-slo-pool-training")["spec"]["template"]["spec"]
    return spec


def config(release: Release, name: str = "latency-predictor-config") -> dict[str, str]:
    data: dict[str, str] = release.one("ConfigMap", name)["data"]
    return data


@pytest.mark.parametrize("values", [{}, CLAIM, SHARED], ids=["volume", "claim", "shared claim"])
def test_all_sidecars_share_one_store_that_only_the_trainer_writes(values: dict[str, Any]) -> None:
    release = render({**SIDECARS, **values})
    assert mounts(release.containers["training-server"])["model-store"] == {
        "name": "model-store",
        "mountPath": "/models",
    }
    for name in PREDICTORS:
        assert mounts(release.containers[name])["model-store"]["readOnly"] is True
        assert mounts(release.containers[name])["model-store"]["mountPath"] == "/models"
    assert "model-store" not in mounts(release.containers["epp"])
    assert config(release)["MODEL_STORE"] == config(release, "prediction-server-config")["MODEL_STORE"] == "/models"


def test_by_default_the_store_is_bounded_and_the_pods_own() -> None:
    release = render(SIDECARS)
    assert volume(release.pod)["emptyDir"] == {"sizeLimit": "20Gi"}
    assert not release.has("PersistentVolumeClaim")
    assert "SAMPLE_JOURNAL" not in config(release)


def test_without_anything_to_predict_there_is_no_store() -> None:
    assert [one["name"] for one in render().pod["volumes"]] == ["plugins-config-volume", "tmp"]


def test_a_claim_keeps_models_and_samples() -> None:
    release = render(
        {
            **SIDECARS,
            **CLAIM,
            f"{PERSISTENCE}.size": "7Gi",
            f"{PERSISTENCE}.storageClass": "fast",
            f"{PERSISTENCE}.annotations": {"team": "serving"},
        }
    )
    claim = release.one("PersistentVolumeClaim", "my-slo-pool-model-store")
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "7Gi"}},
    }
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep", "team": "serving"}
    assert volume(release.pod)["persistentVolumeClaim"]["claimName"] == "my-slo-pool-model-store"
    # Prediction servers ignore folders whose names begin with a dot.
    assert config(release)["SAMPLE_JOURNAL"] == "/models/.trainer/samples"


def test_a_claim_of_the_default_class_names_no_class() -> None:
    assert "storageClassName" not in render({**SIDECARS, **CLAIM}).one("PersistentVolumeClaim")["spec"]


def test_an_existing_claim_is_used() -> None:
    release = render({**SIDECARS, **CLAIM, f"{PERSISTENCE}.existingClaim": "mine"})
    assert not release.has("PersistentVolumeClaim")
    assert volume(release.pod)["persistentVolumeClaim"]["claimName"] == "mine"


@pytest.mark.parametrize("store", [{}, CLAIM, SHARED, BUCKET, {**BUCKET, **CLAIM}])
@pytest.mark.parametrize(("trainer", "predictors", "embedded"), [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_a_claim_is_made_only_for_pods_that_need_it(
    store: dict[str, Any], trainer: int, predictors: int, embedded: int
) -> None:
    enabled = {"trainingServer": bool(trainer), "predictionServers": bool(predictors)}
    values = {f"sidecars.{name}.enabled": is_enabled for name, is_enabled in enabled.items()}
    client = "embedded" if embedded else "remote"
    release = render({**store, **values, "inferenceExtension.latencyClient": client})
    claimed = {one["metadata"]["name"] for one in release.find("PersistentVolumeClaim")}
    asked = {
        one["persistentVolumeClaim"]["claimName"] for one in release.pod["volumes"] if "persistentVolumeClaim" in one
    }
    assert claimed == asked


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, "RollingUpdate"),
        (CLAIM, "Recreate"),
        ({**CLAIM, f"{PERSISTENCE}.accessModes": ["ReadWriteOncePod"]}, "Recreate"),
        (SHARED, "RollingUpdate"),
        (BUCKET, "RollingUpdate"),
    ],
)
def test_pods_that_cannot_share_a_claim_do_not_overlap(values: dict[str, Any], kind: str) -> None:
    strategy = render({**SIDECARS, **values}).deployment["spec"]["strategy"]
    assert strategy["type"] == kind
    assert (strategy.get("rollingUpdate") is None) == (kind == "Recreate")


def test_a_bucket_needs_no_volume() -> None:
    release = render({**SIDECARS, **BUCKET})
    assert [one["name"] for one in release.pod["volumes"]] == ["plugins-config-volume", "tmp"]
    assert (
        config(release)["MODEL_STORE"]
        == config(release, "prediction-server-config")["MODEL_STORE"]
        == ("s3://models/pool")
    )
    for name in ("training-server", *PREDICTORS):
        variables = env(release.containers[name])
        assert variables["AWS_REGION"] == variables["AWS_DEFAULT_REGION"] == "eu-west-1"
        assert variables["AWS_ENDPOINT_URL_S3"] == "https://minio:9000"
        assert variables["AWS_SECRET_ACCESS_KEY"] == {"secretKeyRef": {"name": "minio", "key": "AWS_SECRET_ACCESS_KEY"}}
        assert "model-store" not in mounts(release.containers[name])
    assert "AWS_SECRET_ACCESS_KEY" not in env(release.containers["epp"])


def test_a_bucket_without_a_secret_is_read_with_the_service_accounts_identity() -> None:
    release = render(
        {
            **SIDECARS,
            "modelStore.s3.url": "s3://models",
            "inferenceExtension.serviceAccount.annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/pool"},
        }
    )
    assert not {name for name in env(release.containers["training-server"]) if name.startswith("AWS_")}
    account = release.one("ServiceAccount", "my-slo-pool-epp")
    assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/pool"}


def test_beside_a_bucket_a_claim_holds_only_the_samples() -> None:
    release = render({**SIDECARS, **BUCKET, **CLAIM})
    assert config(release)["MODEL_STORE"] == "s3://models/pool"
    assert config(release)["SAMPLE_JOURNAL"] == "/models/.trainer/samples"
    assert "model-store" in mounts(release.containers["training-server"])
    assert "model-store" not in mounts(release.containers["prediction-server-1"])


@pytest.mark.parametrize("given", ["value", "flag"])
def test_an_embedded_predictor_reads_the_store(given: str) -> None:
    as_flag = {"inferenceExtension.flags": [{"name": "latency-client", "value": "embedded"}]}
    as_value = {"inferenceExtension.latencyClient": "embedded"}
    values = {"sidecars.trainingServer.enabled": True, **(as_value if given == "value" else as_flag)}
    release = render(values)
    assert {"--latency-client=embedded", "--enable-latency-predictor=true"} < set(release.args)
    assert mounts(release.containers["epp"])["model-store"]["readOnly"] is True
    assert env(release.containers["epp"])["MODEL_STORE"] == "/models"
    in_bucket = render({**values, **BUCKET}).containers["epp"]
    assert "model-store" not in mounts(in_bucket)
    assert env(in_bucket)["MODEL_STORE"] == "s3://models/pool"
    assert "AWS_ACCESS_KEY_ID" in env(in_bucket)


@pytest.mark.parametrize(
    "several", [{"inferenceExtension.replicas": 3}, {"inferenceExtension.autoscaling.enabled": True}]
)
@pytest.mark.parametrize("store", [SHARED, BUCKET], ids=["claim", "bucket"])
def test_a_fleet_has_one_trainer_in_its_own_deployment(several: dict[str, Any], store: dict[str, Any]) -> None:
    release = render({**SIDECARS, **several, **store})
    assert list(release.containers) == ["epp", *PREDICTORS]
    trainer = release.one("Deployment", "my-slo-pool-training")
    assert trainer["spec"]["replicas"] == 1
    assert trainer["spec"]["strategy"] == {"type": "Recreate"}
    (container,) = trainer["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "training-server"

    service = release.one("Service", "my-slo-pool-training")["spec"]
    assert [port["port"] for port in service["ports"]] == [8000]
    assert service["selector"] == trainer["spec"]["template"]["metadata"]["labels"]
    assert service["selector"] != release.deployment["spec"]["template"]["metadata"]["labels"]
    assert 8000 not in release.service_ports.values()
    for name in ("epp", "prediction-server-1"):
        assert env(release.containers[name])["TRAINING_SERVER_URL"] == "https://my-slo-pool-training:8000"


def test_a_fleet_shares_the_claim_and_only_the_trainer_writes() -> None:
    release = render({**SIDECARS, **SHARED, "inferenceExtension.replicas": 2})
    assert volume(release.pod) == volume(trainer_pod(release))
    assert "readOnly" not in mounts(trainer_pod(release)["containers"][0])["model-store"]
    assert release.one("PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_fleets_trainer_has_no_token_and_no_rights() -> None:
    release = render({**SIDECARS, **BUCKET, "inferenceExtension.replicas": 2})
    pod = trainer_pod(release)
    assert pod["automountServiceAccountToken"] is False
    assert release.has("ServiceAccount", pod["serviceAccountName"])
    bound = {subject["name"] for binding in release.find("RoleBinding") for subject in binding["subjects"]}
    assert pod["serviceAccountName"] not in bound


def test_a_single_picker_may_have_its_trainer_in_another_pod() -> None:
    release = render({**SIDECARS, **BUCKET, "sidecars.trainingServer.ownDeployment": True})
    assert "training-server" not in release.containers
    assert release.has("Deployment", "my-slo-pool-training")


@pytest.mark.parametrize("several", ["inferenceExtension.replicas=2", "sidecars.trainingServer.ownDeployment=true"])
@pytest.mark.parametrize("store", [{}, CLAIM], ids=["volume", "claim of a node"])
def test_a_trainer_in_another_pod_needs_a_shared_store(several: str, store: dict[str, Any]) -> None:
    with pytest.raises(HelmError, match=r"need a model store that all pods share: set modelStore\.s3\.url, or"):
        render({**SIDECARS, **store}, sets=[several])


def test_a_fleets_pickers_cannot_use_a_trainer_in_their_own_pods() -> None:
    with pytest.raises(HelmError, match="TRAINING_SERVER_URL names the picker's own pod"):
        render({**BUCKET, "inferenceExtension.replicas": 2}, files=[CUSTOM_VALUES])
    release = render({**BUCKET, "inferenceExtension.replicas": 2}, files=[SLO_VALUES])
    assert env(release.containers["epp"])["TRAINING_SERVER_URL"] == "https://my-slo-pool-training:8000"


def test_a_fleet_without_a_trainer_needs_no_shared_store() -> None:
    release = render({"inferenceExtension.replicas": 2, "sidecars.predictionServers.enabled": True})
    assert volume(release.pod)["emptyDir"] == {"sizeLimit": "20Gi"}


def test_with_an_autoscaler_the_chart_sets_no_replicas() -> None:
    release = render({"inferenceExtension.autoscaling.enabled": True})
    assert "replicas" not in release.deployment["spec"]
    scaler = release.one("HorizontalPodAutoscaler", "my-slo-pool-epp")["spec"]
    assert (scaler["scaleTargetRef"]["name"], scaler["minReplicas"], scaler["maxReplicas"]) == ("my-slo-pool-epp", 2, 5)
    assert not render().has("HorizontalPodAutoscaler")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, False),
        ({"inferenceExtension.replicas": 2}, True),
        ({"inferenceExtension.autoscaling.enabled": True}, True),
        ({"inferenceExtension.replicas": 2, "inferenceExtension.podDisruptionBudget.enabled": False}, False),
        # With leader election only one replica is ready, so a budget would block its node's drain for ever.
        ({"inferenceExtension.replicas": 2, "inferenceExtension.enableLeaderElection": True}, False),
    ],
)
def test_several_serving_pickers_have_a_disruption_budget(values: dict[str, Any], expected: bool) -> None:
    release = render(values)
    assert release.has("PodDisruptionBudget") == expected
    if expected:
        budget = release.one("PodDisruptionBudget")["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"] == release.deployment["spec"]["selector"]["matchLabels"]


def test_pods_restart_only_when_their_settings_change() -> None:
    def annotations(**values: Any) -> object:
        return render({**SIDECARS, **values}).deployment["spec"]["template"]["metadata"]["annotations"]

    plain = annotations()
    assert annotations(**{"sidecars.trainingServer.config.trees": 90}) != plain
    assert annotations(**{"sidecars.predictionServers.config.modelSyncIntervalSec": 11}) != plain
    # The picker reloads its plugin file by itself.
    assert annotations(**{"inferenceExtension.pluginsCustomConfig": {"a.yaml": "b"}}) == plain


# Settings of the two programs that the chart itself decides.
_DECIDED = {"TRAINER_HOST", "TRAINER_PORT", "MODEL_STORE", "SAMPLE_JOURNAL", "PREDICT_HOST", "PREDICT_PORT"}
_DECIDED |= {"PREDICT_GRPC_PORT", "TRAINING_SERVER_URL", "TRAINER_CERT_PATH", "PREDICT_CERT_PATH"}
_DECIDED |= {"MODEL_SIGNING_KEY_FILE", "MODEL_VERIFY_KEY_FILE"}
_DECIDED |= {"TRAINER_TOKEN_FILE", "PREDICT_TOKEN_FILE"}
_TRAINER: dict[str, Any] = {
    "retrainingIntervalSec": 2,
    "minSamplesForRetrain": 50,
    "minSamplesForRetrainFresh": 20,
    "modelType": "lightgbm",
    "objectiveType": "mean",
    "quantileAlpha": 0.8,
    "extraQuantiles": "0.5,0.99",
    "maxTrainingDataSizePerBucket": 100,
    "testTrainRatio": 0.2,
    "maxTestDataSize": 50,
    "sampleWeightingForPrefixCache": True,
    "trees": 30,
    "depth": 3,
    "learningRate": 0.1,
    "threads": 2,
    "gateTolerance": 0.3,
    "driftTolerance": 0.4,
    "canaryRows": 70,
    "allowedOutliers": 2.5,
    "maxSourceShare": 0.7,
    "keepGenerations": 9,
    "maxBodyBytes": 33554432,
    "logLevel": "debug",
}
_PREDICTOR: dict[str, Any] = {
    "modelSyncIntervalSec": 1.5,
    "modelType": "lightgbm",
    "modelControlMode": "none",
    "versionPolicy": "latest:2",
    "workers": 2,
    "maxModelBytes": 33554432,
    "tryModels": False,
    "maxBodyBytes": 1048576,
    "maxRows": 100,
}


@pytest.mark.parametrize(
    ("program", "kind", "given", "name"),
    [
        (trainer_main, "trainingServer", _TRAINER, "latency-predictor-config"),
        (predictor_main, "predictionServers", _PREDICTOR, "prediction-server-config"),
    ],
)
def test_every_setting_of_the_programs_has_a_key_that_they_read(
    program: click.Command, kind: str, given: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = config(render({**SIDECARS, f"sidecars.{kind}.config": given}), name)
    known = {}
    for option in program.params:
        for variable in [option.envvar] if isinstance(option.envvar, str) else option.envvar or []:
            known[variable] = option
    upper = {variable for variable in known if variable.isupper()}
    settings = {variable: value for variable, value in data.items() if variable != "MODEL_STORE"}
    assert settings.keys() == upper - _DECIDED
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    context = program.make_context(kind, [])
    for variable, value in settings.items():
        assert context.params[str(known[variable].name)] not in (None, known[variable].default), (variable, value)
