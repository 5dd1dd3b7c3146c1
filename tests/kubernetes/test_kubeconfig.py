"""Test certificates, tokens and plugins of kubeconfigs, against a server that records who asks."""

import base64
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from epp.exceptions import ConfigError
from epp.kubernetes import credentials
from epp.kubernetes.access import connect
from epp.kubernetes.client import Client, Selection
from epp.kubernetes.exceptions import ApiError, CredentialsError, UnreachableError
from epp.kubernetes.kubeconfig import read_service_account
from epp.kubernetes.objects import PODS
from tests.serving.authority import Authority, server_context

GOOD = "Bearer good"
PLUGIN = """
import json, os, pathlib, sys
print("a plugin warns", file=sys.stderr)
asked = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert not asked["spec"]["interactive"] and not sys.stdin.read()
folder = pathlib.Path(os.environ["FOLDER"])
with (folder / "runs").open("a") as runs:
    runs.write(sys.argv[1])
token = (folder / "token").read_text()
print(json.dumps({"apiVersion": asked["apiVersion"], "kind": "ExecCredential", "status": {"token": token}}))
"""


class Server:
    """An API server that records each request's Authorization header and whether it showed a client certificate."""

    def __init__(self, accepted: str) -> None:
        self.accepted = accepted
        self.authorizations: list[str] = []
        self.had_certificate: list[bool] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.authorizations.append(request.headers.get("Authorization", ""))
        tls = request.get_extra_info("ssl_object")
        self.had_certificate.append(bool(tls and tls.getpeercert()))
        if self.authorizations[-1] != self.accepted:
            return web.json_response({"message": "Unauthorized", "code": 401}, status=401)
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None, accepted: str = GOOD) -> AsyncIterator[Server]:
    server = Server(accepted)
    app = web.Application()
    app.router.add_get("/below/api/v1/namespaces/models/pods", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    server.url = f"http{'s' if context else ''}://127.0.0.1:{runner.addresses[0][1]}/below/"
    try:
        yield server
    finally:
        await runner.cleanup()


def written(folder: Path, server: str, cluster: dict[str, Any] | None = None, user: object = None) -> str:
    """Write a kubeconfig and return its path."""
    context = {"cluster": "c", "namespace": "models"} | ({"user": "u"} if user is not None else {})
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server} | (cluster or {})}],
        "users": [{"name": "other", "user": {}}, {"name": "u", "user": user or {}}],
        "contexts": [{"name": "c", "context": context}],
        "current-context": "c",
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


async def ask(client: Client) -> None:
    await client.list(PODS, Selection(client.namespace))


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.parametrize("inline", [False, True])
async def test_certificates_are_files_beside_the_kubeconfig_or_data_in_it(tmp_path: Path, inline: bool) -> None:
    authority = Authority()
    authority.issue(tmp_path)
    authority.write_ca(tmp_path / "ca.crt")
    context = server_context(tmp_path)
    context.load_verify_locations(tmp_path / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    cluster = {"certificate-authority": "ca.crt"}
    user = {"client-certificate": "tls.crt", "client-key": "tls.key"}
    if inline:
        cluster = {f"{name}-data": encoded(tmp_path / file) for name, file in cluster.items()}
        user = {f"{name}-data": encoded(tmp_path / file) for name, file in user.items()}
    async with serving(context, accepted="") as server, connect(written(tmp_path, server.url, cluster, user)) as client:
        await ask(client)
        assert server.had_certificate == [True]
        async with connect(written(tmp_path, server.url, cluster, {})) as stranger:
            with pytest.raises(UnreachableError):
                await ask(stranger)


async def test_a_server_without_a_trusted_certificate_gets_no_request(tmp_path: Path) -> None:
    context = server_context(Authority().issue(tmp_path))
    Authority("another").write_ca(tmp_path / "ca.crt")
    for cluster in ({"certificate-authority": "ca.crt"}, {}):
        async with serving(context, "") as server, connect(written(tmp_path, server.url, cluster)) as client:
            with pytest.raises(UnreachableError, match="certificate verify failed"):
                await ask(client)
            assert not server.authorizations
    unverified = {"insecure-skip-tls-verify": True}
    async with serving(context, "") as server, connect(written(tmp_path, server.url, unverified)) as client:
        await ask(client)


@pytest.mark.parametrize(
    ("user", "header"),
    [
        (None, ""),
        ({}, ""),
        ({"token": "good\n"}, GOOD),
        ({"token": None, "tokenFile": "token", "username": "x"}, GOOD),
        ({"tokenFile": "token", "token": "bad"}, GOOD),
        ({"username": "jo", "password": "pass"}, "Basic am86cGFzcw=="),
    ],
)
async def test_the_users_entry_sets_the_authorization_header(tmp_path: Path, user: object, header: str) -> None:
    (tmp_path / "token").write_text("good\n")
    async with serving(accepted=header) as server, connect(written(tmp_path, server.url, user=user)) as client:
        await ask(client)
        assert server.authorizations == [header]


def plugin(folder: Path, **fields: object) -> dict[str, object]:
    (folder / "plugin.py").write_text(PLUGIN)
    (folder / "token").write_text("good")
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(folder / "plugin.py"), "x"],
        "env": [{"name": "FOLDER", "value": str(folder)}],
        "installHint": "install it",
        "provideClusterInfo": False,
    } | fields


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha1"])
async def test_a_plugin_runs_again_only_when_its_token_is_refused(tmp_path: Path, version: str) -> None:
    exec_ = plugin(tmp_path, apiVersion=f"client.authentication.k8s.io/{version}")
    async with serving() as server, connect(written(tmp_path, server.url, user={"exec": exec_})) as client:
        await ask(client)
        await ask(client)
        assert (tmp_path / "runs").read_text() == "x"
        (tmp_path / "token").write_text("newer")
        server.accepted = "Bearer newer"
        await ask(client)
        assert server.authorizations == [GOOD, GOOD, GOOD, "Bearer newer"]
        assert (tmp_path / "runs").read_text() == "xx"
        server.accepted = "Bearer newest"
        with pytest.raises(ApiError, match="Unauthorized"):
            await ask(client)
        # The plugin returned the same token again, so there was no second attempt.
        assert server.authorizations[4:] == ["Bearer newer"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"command": "/absent"}, "exec plugin /absent: .*No such file"),
        ({"args": ["-c", "raise SystemExit('no login')"], "env": None}, "exit code 1: no login"),
        ({"args": ["-c", "print('{}')"]}, "required field `status`"),
        ({"args": None}, "Input data was truncated"),
        ({"args": ["-c", 'print(\'{"status": {"token": "a\\\\nb"}}\')']}, "characters that no token has"),
    ],
)
async def test_a_failed_plugin_runs_again_for_the_next_request(
    tmp_path: Path, fields: dict[str, object], said: str
) -> None:
    exec_ = plugin(tmp_path, **fields)
    async with serving() as server, connect(written(tmp_path, server.url, user={"exec": exec_})) as client:
        for _ in range(2):
            with pytest.raises(CredentialsError, match=said):
                await ask(client)
        assert not server.authorizations


async def test_a_plugin_that_hangs_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_PLUGIN_S", 0.5)
    exec_ = plugin(tmp_path, args=["-c", "import time; time.sleep(60)"])
    async with serving() as server, connect(written(tmp_path, server.url, user={"exec": exec_})) as client:
        with pytest.raises(CredentialsError, match="no answer in time"):
            await ask(client)


async def test_a_missing_token_file_is_read_when_it_appears(tmp_path: Path) -> None:
    async with serving() as server, connect(written(tmp_path, server.url, user={"tokenFile": "token"})) as client:
        with pytest.raises(CredentialsError, match=r"token file .*/token: .*No such file"):
            await ask(client)
        (tmp_path / "token").write_text("good")
        await ask(client)


@pytest.mark.parametrize(
    ("cluster", "user", "said"),
    [
        ({"server": "127.0.0.1"}, {}, "'127.0.0.1' is no http or https URL"),
        ({"certificate-authority": "absent"}, {}, "No such file or directory: .*/absent"),
        ({"certificate-authority-data": "YWJj"}, {}, "certificate"),
        ({"certificate-authority-data": "YWJ"}, {}, "certificate or key data: Incorrect padding"),
        ({}, {"client-certificate": "absent"}, "No such file or directory: .*/absent"),
        ({}, {"client-certificate-data": "YWJj"}, "client's certificate and key can't be used"),
        ({}, {"auth-provider": {"name": "gcp"}}, "auth-provider is not supported"),
        ({}, {"exec": {"apiVersion": "v2", "command": "x"}}, "Invalid enum value 'v2'"),
        ({}, {"token": 5}, "Expected `str"),
    ],
)
def test_an_unusable_entry_is_refused_at_the_start(
    tmp_path: Path, cluster: dict[str, Any], user: object, said: str
) -> None:
    with pytest.raises(ConfigError, match=f"config.yaml: .*{said}"):
        connect(written(tmp_path, "https://127.0.0.1:1", cluster, user))


@pytest.mark.parametrize(("part", "name"), [("user", "User"), ("cluster", "Cluster")])
def test_a_context_with_an_unknown_cluster_or_user_is_refused(tmp_path: Path, part: str, name: str) -> None:
    path = Path(written(tmp_path, "https://127.0.0.1:1", user={}))
    content = yaml.safe_load(path.read_text())
    content["contexts"][0]["context"][part] = "x"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=f"{name} 'x' not found"):
        connect(str(path))


def test_a_service_account_needs_its_token_and_variables(tmp_path: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    (tmp_path / "namespace").write_text("models\n")
    Authority().write_ca(tmp_path / "ca.crt")
    with pytest.raises(FileNotFoundError, match="/token"):
        read_service_account(tmp_path, environ)
    (tmp_path / "token").write_text("t")
    access = read_service_account(tmp_path, environ)
    assert (access.server, access.namespace) == ("https://[fd00::1]:443", "models")
    with pytest.raises(ValueError, match="'KUBERNETES_SERVICE_HOST' is missing"):
        read_service_account(tmp_path, {})
