"""The keys that sign models: only the trainer has the private one."""

from typing import Any

import pytest

from tests.helm.release import Object, Release, env, mounts, render
from tests.helm.test_store import BUCKET, SIDECARS, trainer_pod, volume

SIGNED = {"modelStore.signing.existingSecret": "model-keys"}
_VERIFIER = {"name": "model-verify", "mountPath": "/model-verify", "readOnly": True}


def keys(pod: Object, name: str) -> list[str]:
    secret = volume(pod, name)["secret"]
    assert secret["secretName"] == "model-keys"
    return [item["key"] for item in secret["items"]]


def volume_names(release: Release) -> set[str]:
    return {one["name"] for one in release.pod["volumes"]}


@pytest.mark.parametrize("apart", [False, True])
def test_only_the_trainer_has_the_signing_key(apart: bool) -> None:
    values: dict[str, Any] = {**SIDECARS, **BUCKET, **SIGNED, "sidecars.trainingServer.ownDeployment": apart}
    release = render(values)
    pod = trainer_pod(release) if apart else release.pod
    (trainer,) = (one for one in pod["containers"] if one["name"] == "training-server")
    assert keys(pod, "model-signing") == ["signing.key"]
    assert keys(pod, "model-verify") == ["verify.pem"]
    assert env(trainer)["MODEL_SIGNING_KEY_FILE"] == "/model-signing/signing.key"
    assert env(trainer)["MODEL_VERIFY_KEY_FILE"] == "/model-verify/verify.pem"
    assert {"model-signing", "model-verify"} <= mounts(trainer).keys()
    assert keys(release.pod, "model-verify") == ["verify.pem"]
    assert ("model-signing" in volume_names(release)) == (not apart)
    predictor = release.containers["prediction-server-1"]
    assert env(predictor)["MODEL_VERIFY_KEY_FILE"] == "/model-verify/verify.pem"
    assert mounts(predictor)["model-verify"] == _VERIFIER
    for name in ("epp", "prediction-server-1"):
        assert "model-signing" not in mounts(release.containers[name])


def test_an_embedded_predictor_verifies() -> None:
    release = render({**SIGNED, "inferenceExtension.latencyClient": "embedded"})
    assert env(release.containers["epp"])["MODEL_VERIFY_KEY_FILE"] == "/model-verify/verify.pem"
    assert mounts(release.containers["epp"])["model-verify"] == _VERIFIER


def test_nothing_is_signed_by_default_or_mounted_where_nothing_loads_models() -> None:
    for values in (SIDECARS, SIGNED):
        assert not volume_names(render(values)) & {"model-signing", "model-verify"}
