"""The whole loop under traffic, a Prometheus that scrapes it, and the chart's rules."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from headroom.processes.supervisor import Supervisor
from lab.loop.stack import StackConfig, parts, unused_ports
from tests.helm.release import render
from tests.live import until
from tests.monitoring.prometheus import Prometheus, Target, faster, program, prometheus

# Windows and waits of rules are so many times shorter than the chart's: five minutes are five seconds.
FASTER = 60
# Age in seconds at which models are old. A pass begins every two seconds.
OLD_S = 15
ALL_RULES = {
    "monitoring.prometheusRule.enabled": True,
    "sidecars.trainingServer.enabled": True,
    "sidecars.predictionServers.enabled": True,
    "inferenceExtension.enableLeaderElection": True,
}


@dataclass(frozen=True)
class Loop:
    config: StackConfig
    supervisor: Supervisor


def chart_rules(**more: Any) -> dict[str, Any]:
    """Return the chart's rules, all of them."""
    spec: dict[str, Any] = render(ALL_RULES | more).one("PrometheusRule")["spec"]
    return spec


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def loop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Loop]:
    """Envoy, picker, trainer, predictors and simulated servers, started as the demo starts them."""
    program("prometheus")
    folder = tmp_path_factory.mktemp("loop")
    config = StackConfig(
        folder=folder,
        hardware=["fast", "slow"],
        ports=unused_ports(2),
        speed_factor=10.0,
        quantiles=(0.9, 0.5),
        # So small a queue is full soon after the trainer is gone.
        picker_flags=("--latency-max-sample-size", 200, "--latency-flush-interval-sec", 0.5),
    )
    supervisor = Supervisor(folder, lambda name: None)
    try:
        await supervisor.start(parts(config), lambda name: None)
        yield Loop(config, supervisor)
    finally:
        await supervisor.stop()


@pytest.fixture(scope="session")
def watcher(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, with rules whose times are shorter."""
    config = loop.config
    targets = [
        Target("epp", config.picker_url.removeprefix("http://")),
        Target("training-server", config.trainer_url.removeprefix("http://")),
        *(
            Target(f"prediction-server-{n}", url.removeprefix("http://"))
            for n, url in enumerate(config.predictor_urls, 1)
        ),
    ]
    rules = faster(chart_rules(**{"monitoring.prometheusRule.oldestModelSeconds": OLD_S}), FASTER)
    with prometheus(tmp_path_factory.mktemp("prometheus") / "run", targets, rules) as found:
        # An increase needs samples from before it.
        until(lambda: bool(found.query(f"count(count_over_time(up[1m]) >= 3) == {len(targets)}")))
        yield found
