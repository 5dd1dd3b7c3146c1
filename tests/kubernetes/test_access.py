"""Test the access to the API server by kubeconfigs and service accounts."""

from pathlib import Path

import pytest

from epp.exceptions import ConfigError
from epp.kubernetes.access import connect, own_identity, own_namespace
from epp.kubernetes.client import Selection
from epp.kubernetes.exceptions import ApiError, UnreachableError
from epp.kubernetes.objects import PODS
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.namespace import Namespace


@pytest.fixture
def service_account(plane: ControlPlane, namespace: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that a kubelet mounts into a pod."""
    (tmp_path / "token").write_text(namespace.picker_token)
    (tmp_path / "namespace").write_text(namespace.name)
    (tmp_path / "ca.crt").write_bytes(plane.certificate.read_bytes())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(plane.port))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return tmp_path


@pytest.mark.slow
async def test_a_pod_uses_its_service_account(service_account: Path, namespace: Namespace) -> None:
    namespace.add_pod("pod", "10.0.0.1")
    async with connect(service_account=str(service_account)) as client:
        assert client.namespace == namespace.name
        assert list((await client.list(PODS, Selection(client.namespace))).items) == ["pod"]


@pytest.mark.slow
async def test_a_rotated_token_is_read_again(service_account: Path, namespace: Namespace) -> None:
    (service_account / "token").write_text("an expired token")
    async with connect(service_account=str(service_account)) as client:
        with pytest.raises(ApiError, match="401"):
            await client.list(PODS, Selection(namespace.name))
        (service_account / "token").write_text(namespace.picker_token)
        await client.list(PODS, Selection(namespace.name))


@pytest.mark.slow
async def test_a_list_of_several_pages_is_complete(plane: ControlPlane, namespace: Namespace) -> None:
    count = 501
    for i in range(count):
        namespace.add_pod(f"pod-{i}")
    async with connect(str(plane.kubeconfig())) as client:
        assert len((await client.list(PODS, Selection(namespace.name))).items) == count


@pytest.mark.slow
async def test_the_environment_may_name_the_kubeconfig(
    kubeconfig: Path, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    async with connect() as client:
        assert not (await client.list(PODS, Selection(namespace.name))).items


@pytest.mark.slow
async def test_a_refusals_error_gives_the_reason(plane: ControlPlane, namespace: Namespace) -> None:
    async with connect(str(plane.kubeconfig(plane.tokens["stranger"]))) as client:
        with pytest.raises(ApiError, match='"stranger" cannot list resource "pods"') as refused:
            await client.list(PODS, Selection(namespace.name))
        assert refused.value.status == 403


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "while parsing"),
        ("clusters: []", "`contexts`"),
        ("{clusters: [], contexts: []}", "No current context"),
        ("{clusters: [], contexts: [], current-context: x}", "Context 'x' not found"),
        ("{clusters: 3, contexts: 4}", "Expected `array`, got `int`"),
    ],
)
def test_an_invalid_kubeconfig_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        connect(str(path))


def test_the_error_without_any_access_asks_for_a_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="give a kubeconfig"):
        connect(service_account=str(tmp_path / "absent"))


async def test_an_unreachable_api_server_raises_an_error_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "{clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], contexts: [{name: c, context: {cluster: c}}],"
        " current-context: c}"
    )
    async with connect(str(path)) as client:
        with pytest.raises(UnreachableError, match="/api/v1/namespaces/default/pods"):
            await client.list(PODS, Selection(client.namespace))


def test_a_process_finds_its_own_namespace_and_identity(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("models\n")
    assert own_namespace({"NAMESPACE": "other"}, str(tmp_path)) == "other"
    assert own_namespace({}, str(tmp_path)) == "models"
    assert own_namespace({}, str(tmp_path / "absent")) == ""
    assert own_identity({"POD_NAME": "epp-1"}) == "epp-1"
    assert own_identity({}) != own_identity({})
