"""The network between each two parts of the loop: a relay in every way from one part to another."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from headroom.processes.ports import free_ports
from lab.chaos.relay import Relay
from lab.loop.stack import Ports, StackConfig

# Pairs of parts, by the name of the fault.
LINKS: Final = (
    "picker and predictor",
    "picker and predictors",
    "picker and trainer",
    "Envoy and picker",
    "picker and server",
    "Envoy and server",
)


class Links:
    """Relays between the parts of a loop with these ports.

    `picker` and `envoy` are the ports that these two parts see. `metrics_ports` are those of the servers' metrics.
    """

    def __init__(self, config: StackConfig) -> None:
        ports, servers = config.ports, len(config.hardware)
        targets = [
            *ports.predictors,
            ports.trainer,
            ports.picker,
            *(ports.first_server + index for index in range(servers)),
            *(ports.first_server + index for index in range(servers)),
        ]
        relays = [Relay(port, target) for port, target in zip(free_ports(len(targets)), targets, strict=True)]
        count = len(ports.predictors)
        predictors, trainer, picker = relays[:count], relays[count], relays[count + 1]
        first, first_metrics = relays[count + 2], relays[count + 2 + servers]
        found: Sequence[Sequence[Relay]] = (
            predictors[:1],
            predictors,
            [trainer],
            [picker],
            [first_metrics],
            [first],
        )
        self._links = dict(zip(LINKS, found, strict=True))
        self._relays = relays
        self.metrics_ports = [relay.port for relay in relays[-servers:]]
        self.picker: Ports = replace(
            ports,
            trainer=trainer.port,
            predictors=[relay.port for relay in predictors],
            first_server=first.port,
        )
        self.envoy: Ports = replace(ports, picker=picker.port, first_server=first.port)

    async def start(self) -> None:
        for relay in self._relays:
            await relay.start()

    async def stop(self) -> None:
        for relay in self._relays:
            await relay.stop()

    def breaks(self, link: str, way: str) -> None:
        """Begin to disturb one of LINKS in one of the relay's ways."""
        for relay in self._links[link]:
            relay.breaks(way)

    def mend(self, link: str) -> None:
        for relay in self._links[link]:
            relay.mend()
