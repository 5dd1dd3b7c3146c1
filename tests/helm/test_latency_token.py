"""The token that the picker sends, and the servers that ask for it."""

import base64
from typing import Any

import pytest

from tests.helm.release import CHART, Object, Release, arguments, env, helm, mounts, render

SIDECARS = {"sidecars.trainingServer.enabled": True, "sidecars.predictionServers.enabled": True}
FLEET = {**SIDECARS, "inferenceExtension.replicas": 2, "modelStore.s3.url": "s3://models"}
ASKED_BY = "sidecars.token.askedBy"
SECRET, FILE = "my-slo-pool-latency-token", "/latency-token/token"
MOUNT = {"name": "latency-token", "mountPath": "/latency-token", "readOnly": True}
VARIABLES = {"training-server": "TRAINER_TOKEN_FILE", "prediction-server-1": "PREDICT_TOKEN_FILE"}


def containers(release: Release) -> dict[str, Object]:
    return {one["name"]: one for pod in release.pods for one in pod["containers"]}


def asking(release: Release) -> set[str]:
    """Return the servers that ask for the token. Each container has the file just when it has the variable."""
    found = containers(release)
    asks = {name for name, variable in VARIABLES.items() if env(found[name]).get(variable) == FILE}
    holders = {name for name, one in found.items() if mounts(one).get("latency-token") == MOUNT}
    sends = {"epp"} if env(found["epp"]).get("LATENCY_TOKEN_FILE") == FILE else set()
    assert (
        holders
        == {name for name in found if name.startswith("prediction") and "prediction-server-1" in asks}
        | (asks & {"training-server"})
        | sends
    )
    assert bool(sends) == bool(asks)
    for pod in release.pods:
        volumes = [one["secret"] for one in pod["volumes"] if one["name"] == "latency-token"]
        needed = any(one["name"] in holders for one in pod["containers"])
        assert [one["items"] for one in volumes] == [[{"key": "token", "path": "token"}]] * needed
    return asks


def test_a_trainer_with_its_own_deployment_asks_for_a_random_token() -> None:
    release = render(FLEET)
    assert asking(release) == {"training-server"}
    token = base64.b64decode(release.one("Secret", SECRET)["data"]["token"])
    assert len(token) == 43
    assert token.isalnum()
    other = render(FLEET, name="other").one("Secret", "other-latency-token")["data"]["token"]
    assert base64.b64decode(other) != token


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (SIDECARS, set()),
        ({**FLEET, ASKED_BY: "none"}, set()),
        ({**SIDECARS, ASKED_BY: "all"}, set(VARIABLES)),
        ({**FLEET, ASKED_BY: "all"}, set(VARIABLES)),
    ],
    ids=["in one pod", "none", "all in one pod", "all of a fleet"],
)
def test_who_asks_for_the_token(values: dict[str, Any], expected: set[str]) -> None:
    release = render(values)
    assert asking(release) == expected
    assert release.has("Secret", SECRET) == bool(expected)


def test_an_existing_secret_is_used() -> None:
    release = render({**FLEET, "sidecars.token.existingSecret": "mine"})
    assert not release.has("Secret", SECRET)
    names = {
        one["secret"]["secretName"] for pod in release.pods for one in pod["volumes"] if one["name"] == MOUNT["name"]
    }
    assert names == {"mine"}


def test_the_notes_send_the_token_where_it_is_asked_for() -> None:
    for values, count in ((SIDECARS, 0), (FLEET, 1), ({**FLEET, ASKED_BY: "all"}, 2)):
        text = helm("install", "my-slo-pool", CHART, "--dry-run=client", *arguments(values)).partition("NOTES:")[2]
        assert text.count(f'curl -s -H "authorization: Bearer $(head -n 1 {FILE})"') == count, text
