"""The whole loop as processes on this machine, with their ports and flags."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from epp.scheduling.configuration.config import DEFAULT_CONFIG
from headroom.files import replace_file
from headroom.gateway import envoy
from headroom.processes.ports import free_ports
from headroom.processes.python_part import python_part
from headroom.processes.supervisor import Part

ROOT = Path(__file__).parents[2]
MODEL = "simulated-70b"


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The loop's ports. The defaults are the chart's."""

    envoy: int = 8080
    envoy_admin: int = 9901
    picker: int = 9002
    picker_health: int = 9003
    picker_metrics: int = 9090
    trainer: int = 8000
    predictors: Sequence[int] = (8001, 8002, 8003)
    first_server: int = 8100


def unused_ports(servers: int) -> Ports:
    """Return ports that nothing listens on just now: another loop on this machine may start as well."""
    one, *more = free_ports(9 + servers)
    return Ports(
        envoy=one,
        envoy_admin=more[0],
        picker=more[1],
        picker_health=more[2],
        picker_metrics=more[3],
        trainer=more[4],
        predictors=more[5:8],
        first_server=more[8],
    )


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """The settings of the whole loop.

    `hardware` names the hardware of each simulated replica; other model servers are given as `engines` instead.
    `picker_config` is the first content of the configuration file that the picker watches. By default, models predict
    only the median, so that a prediction's error is a plain percentage. `bucket` is the s3:// location of the models;
    without one, they lie in `folder`. `picker_sees` and `envoy_sees` are the ports of the other parts as these two
    reach them, and `metrics_ports` those of the servers' metrics, if relays stand in between.
    """

    folder: Path
    hardware: Sequence[str] = ()
    engines: Sequence[Part] = ()
    ports: Ports = field(default_factory=Ports)
    picker_config: str = DEFAULT_CONFIG
    full_duplex: bool = False
    prediction_timeout: str = "100ms"
    retraining_interval_s: float = 2.0
    min_samples: int = 60
    model_sync_interval_s: float = 0.5
    quantiles: Sequence[float] = (0.5,)
    speed_factor: float = 1.0
    # All processes share a few cores, so the picker is slow at times.
    message_timeout_s: float = 2.0
    picker_flags: Sequence[object] = ()
    bucket: str = ""
    picker_sees: Ports | None = None
    envoy_sees: Ports | None = None
    metrics_ports: Sequence[int] = ()

    @property
    def store(self) -> Path:
        return self.folder / "models"

    @property
    def picker_file(self) -> Path:
        return self.folder / "picker.yaml"

    @property
    def endpoints_file(self) -> Path:
        return self.folder / "endpoints.yaml"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.envoy}"

    @property
    def picker_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.picker_metrics}"

    @property
    def trainer_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.trainer}"

    @property
    def predictor_urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports.predictors]

    @property
    def servers(self) -> list[str]:
        """The ip:port of each replica."""
        if self.engines:
            return [f"127.0.0.1:{engine.ports[0]}" for engine in self.engines]
        return [f"127.0.0.1:{self.ports.first_server + index}" for index in range(len(self.hardware))]

    @property
    def server_names(self) -> list[str]:
        if self.engines:
            return [engine.name for engine in self.engines]
        return [f"{Path(kind).stem if kind.endswith('.csv') else kind}-{n}" for n, kind in enumerate(self.hardware)]


def parts(config: StackConfig) -> list[Part]:
    """Return the processes of the loop in their start order."""
    picker, envoy = (replace(config, ports=sees or config.ports) for sees in (config.picker_sees, config.envoy_sees))
    return [
        *(config.engines or _servers(config)),
        _trainer(config),
        *_predictors(config),
        _picker(picker),
        _envoy(envoy),
    ]


def write_endpoints(config: StackConfig, indices: Iterable[int]) -> None:
    """Put these servers into the pool, in a file that the picker watches."""
    places = [server.rpartition(":") for server in config.servers]
    listed = [
        {"name": config.server_names[index], "address": places[index][0], "port": int(places[index][2])}
        | ({"metricsPort": config.metrics_ports[index]} if config.metrics_ports else {})
        for index in indices
    ]
    replace_file(config.endpoints_file, json.dumps({"endpoints": listed}))


def _python(
    name: str, module: str, ports: Sequence[int], ready: str, flags: Sequence[object], redundant: bool = False
) -> Part:
    return python_part(name, module, ports, ready, flags, redundant=redundant, env={"PYTHONPATH": str(ROOT)})


def _servers(config: StackConfig) -> list[Part]:
    return [_server(config, index) for index in range(len(config.hardware))]


def _server(config: StackConfig, index: int) -> Part:
    name, port = config.server_names[index], config.ports.first_server + index
    flags = ["--port", port, "--name", name, "--model", MODEL]
    flags += ["--hardware", config.hardware[index], "--speed-factor", config.speed_factor]
    return _python(name, "simulator", [port], "/health", flags)


def _trainer(config: StackConfig) -> Part:
    flags: list[object] = ["--host", "127.0.0.1", "--port", config.ports.trainer]
    flags += ["--model-store", config.bucket or config.store]
    flags += ["--retraining-interval-sec", config.retraining_interval_s, "--quantile-alpha", config.quantiles[0]]
    flags += ["--extra-quantiles", ",".join(map(str, config.quantiles[1:]))]
    flags += ["--min-samples-for-retrain", config.min_samples]
    return _python("trainer", "trainer", [config.ports.trainer], "/healthz", flags, redundant=True)


def _predictors(config: StackConfig) -> list[Part]:
    flags: list[object] = ["--host", "127.0.0.1", "--model-store", config.bucket or config.store]
    flags += ["--training-server-url", config.trainer_url, "--grpc-port", 0]
    flags += ["--model-sync-interval-sec", config.model_sync_interval_s]
    return [
        _python(f"predictor-{n}", "predictor", [port], "/healthz", [*flags, "--port", port], redundant=True)
        for n, port in enumerate(config.ports.predictors, start=1)
    ]


def _picker(config: StackConfig) -> Part:
    ports = config.ports
    write_endpoints(config, range(len(config.servers)))
    flags = ["--host", "127.0.0.1", "--grpc-port", ports.picker, "--grpc-health-port", ports.picker_health]
    flags += ["--metrics-port", ports.picker_metrics, "--pool-name", "demo", "--endpoints-file", config.endpoints_file]
    flags += ["--enable-latency-predictor", "true", "--prediction-server-url", ",".join(config.predictor_urls)]
    flags += ["--training-server-url", config.trainer_url, "--prediction-timeout", config.prediction_timeout]
    flags += ["--debug-decisions", 10_000, "--shutdown-delay", "0s", "--drain-timeout", "2s", "--health-checking"]
    flags += ["--try-timeout-factor", 3, "--degrade-after", envoy.degrade_after(config.message_timeout_s)]
    config.picker_file.write_text(config.picker_config)
    flags += ["--config-file", config.picker_file, *config.picker_flags]
    listened = [ports.picker, ports.picker_health, ports.picker_metrics]
    return _python("epp", "lab.loop.picker", listened, "/metrics", flags)


def _envoy(config: StackConfig) -> Part:
    ports = config.ports
    file = config.folder / "envoy.json"
    file.write_text(
        envoy.bootstrap(
            port=ports.envoy,
            admin_port=ports.envoy_admin,
            picker_port=ports.picker,
            servers=config.servers,
            full_duplex=config.full_duplex,
            message_timeout_s=config.message_timeout_s,
            bypass=True,
        )
    )
    command = envoy.command(file, "--concurrency", "1")
    return Part(
        "envoy", command, [ports.envoy, ports.envoy_admin], f"http://127.0.0.1:{ports.envoy_admin}/ready", os.environ
    )
