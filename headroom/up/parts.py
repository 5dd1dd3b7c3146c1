"""The processes of `headroom up`, with their ports and flags."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from epp.pool.addresses import is_ip
from epp.pool.endpoint_list import ListedEndpoint
from epp.scraping.engines import ENGINE_LABELS
from headroom.files import replace_file
from headroom.gateway import clusters, envoy
from headroom.gateway.client_port import ClientPort
from headroom.gateway.server_tls import ServerTls, TrustFiles
from headroom.gateway.tracing import Collector
from headroom.processes.ports import free_ports
from headroom.processes.python_part import python_part
from headroom.processes.supervisor import Part
from headroom.servers.access import ServerAccess
from headroom.servers.look import METRICS_PATHS
from headroom.state import JOURNAL
from headroom.up.clients import ClientFlags
from headroom.up.pool import endpoints_file
from model_store.publication import CURRENT

# All parts share this machine with each other, so the picker is slow at times.
_MESSAGE_TIMEOUT_S = 1.0
_PREDICTION_TIMEOUT = "100ms"
# The server whose metrics aren't at the usual path.
_PAGE_ELSEWHERE = "trtllm-serve"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the user says. Without `predictors`, the picker predicts in its own process.

    With `is_tls`, the servers are reached over TLS. `servers` says how they are verified, and which key they ask for.
    `state` keeps models, samples, logs and configuration. `listed` is the file that lists the servers, if it is the
    user's own: picker and Envoy follow its changes. `objectives` is a file for the picker, which follows it too. With
    `is_shadow`, no request is routed by prediction. Spans of traces go to `collector`, if there is one.
    """

    pool: Sequence[ListedEndpoint]
    listed: Path | None
    state: Path
    clients: ClientFlags
    servers: ServerAccess
    is_tls: bool
    port: int
    page_port: int
    predictors: int
    objectives: Path
    is_shadow: bool
    collector: Collector | None

    @property
    def outcomes(self) -> Path:
        return self.state / JOURNAL

    @property
    def store(self) -> Path:
        return self.state / "models"


def write_objectives(state: Path, ttft_ms: float | None, tpot_ms: float | None) -> Path:
    """Write these objectives of requests that bring none for the picker, and return the file's path."""
    given = {name: ms for name, ms in (("ttftMs", ttft_ms), ("tpotMs", tpot_ms)) if ms is not None}
    file = state / "objectives.json"
    replace_file(file, json.dumps({"objectives": [given] if given else []}))
    return file


def parts(settings: Settings) -> list[Part]:
    """Return the processes, Envoy last, and write the files that they read."""
    trainer, picker, health, admin, *predictors = free_ports(4 + settings.predictors)
    training_url = f"http://127.0.0.1:{trainer}"
    urls = [f"http://127.0.0.1:{port}" for port in predictors]
    return [
        _trainer(settings, trainer),
        *(_predictor(settings, number, port, training_url) for number, port in enumerate(predictors, 1)),
        _picker(settings, (picker, health), training_url, urls),
        _envoy(settings, picker, admin),
    ]


def _python(name: str, module: str, ports: Sequence[int], ready: str, flags: Sequence[object]) -> Part:
    return python_part(name, module, ports, ready, ["--host", "127.0.0.1", *flags])


def _trainer(settings: Settings, port: int) -> Part:
    flags = ["--port", port, "--model-store", settings.store, "--sample-journal", settings.state / "samples"]
    return _python("trainer", "trainer", [port], "/healthz", flags)


def _predictor(settings: Settings, number: int, port: int, training_url: str) -> Part:
    flags = ["--port", port, "--grpc-port", 0, "--model-store", settings.store, "--training-server-url", training_url]
    # If there are models, the first request waits for them. Without any, there will be none for some time.
    ready = "/readyz" if (settings.store / CURRENT).exists() else "/healthz"
    return _python(f"predictor-{number}", "predictor", [port], ready, flags)


def _picker(settings: Settings, ports: Sequence[int], training_url: str, urls: Sequence[str]) -> Part:
    listed = settings.listed or settings.state / "endpoints.json"
    if not settings.listed:
        listed.write_text(endpoints_file(settings.pool))
    grpc_port, health_port = ports
    flags: list[object] = ["--grpc-port", grpc_port, "--grpc-health-port", health_port, "--health-checking"]
    flags += ["--metrics-port", settings.page_port, "--pool-name", "up", "--endpoints-file", listed]
    flags += ["--enable-latency-predictor", "true", "--training-server-url", training_url]
    flags += ["--prediction-timeout", _PREDICTION_TIMEOUT, "--shutdown-delay", "0s"]
    flags += ["--default-objectives-file", settings.objectives, "--outcome-journal", settings.outcomes]
    flags += ["--live-page", *(["--shadow"] if settings.is_shadow else [])]
    flags += ["--tracing"] if settings.collector else []
    flags += ["--degrade-after", envoy.degrade_after(_MESSAGE_TIMEOUT_S)]
    if {place.labels.get(ENGINE_LABELS[0]) for place in settings.pool} == {_PAGE_ELSEWHERE}:
        flags += ["--model-server-metrics-path", METRICS_PATHS[1]]
    flags += _scrape_flags(settings)
    if urls:
        flags += ["--prediction-server-url", ",".join(urls)]
    else:
        flags += ["--latency-client", "embedded", "--model-store", settings.store]
    return _python("epp", "epp", [*ports, settings.page_port], "/metrics", flags)


def _scrape_flags(settings: Settings) -> list[object]:
    """Return the flags by which the picker reads the servers' metrics as the commands look at the servers."""
    servers = settings.servers
    flags: list[object] = ["--model-server-metrics-token-file", servers.key_file] if servers.key_file else []
    if settings.is_tls:
        skip = "--model-server-metrics-https-insecure-skip-verify"
        flags += ["--model-server-metrics-scheme", "https", skip, str(servers.accepts_any).lower()]
        flags += ["--model-server-metrics-ca-file", servers.ca_file] if servers.ca_file else []
    return flags


def write_discovered(settings: Settings, pool: Sequence[ListedEndpoint]) -> Path:
    """Replace the files by which Envoy knows and verifies the servers. Return the path of the servers' file.

    Envoy notices renamed files only. A click.ClickException says why the CAs can't be read.
    """
    names = {place.address: place.server_name if settings.is_tls else "" for place in pool}
    trust = _trust_files(settings)
    if trust:
        trust.write(settings.servers.authorities(), [name for name in names.values() if is_ip(name)])
    file = settings.state / "envoy-endpoints.json"
    servers = [clusters.Server(place.host, place.port, names[place.address]) for place in pool]
    replace_file(file, clusters.discovered(servers))
    return file


def _trust_files(settings: Settings) -> TrustFiles | None:
    if not settings.is_tls or settings.servers.accepts_any:
        return None
    return TrustFiles(settings.state / "envoy-servers-by-name.json", settings.state / "envoy-servers-by-address.json")


def write_listener(settings: Settings, clients: ClientPort) -> Path:
    """Replace the file by which Envoy knows what to ask of clients, and return its path."""
    file = settings.state / "envoy-listener.json"
    text = envoy.discovered_listener(
        settings.port, _MESSAGE_TIMEOUT_S, clients, is_tls=settings.is_tls, collector=settings.collector
    )
    replace_file(file, text, is_secret=True)
    return file


def _envoy(settings: Settings, picker_port: int, admin_port: int) -> Part:
    file = settings.state / "envoy.json"
    file.write_text(
        envoy.bootstrap(
            port=settings.port,
            admin_port=admin_port,
            picker_port=picker_port,
            servers=write_discovered(settings, settings.pool),
            listener=write_listener(settings, settings.clients.read()),
            server_tls=ServerTls(_trust_files(settings)) if settings.is_tls else None,
            collector=settings.collector,
        )
    )
    ports = [settings.port, admin_port]
    return Part("envoy", envoy.command(file), ports, f"http://127.0.0.1:{admin_port}/ready", os.environ)
