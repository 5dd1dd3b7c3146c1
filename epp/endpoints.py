"""Chooses the source of the pool's endpoints (flags, a file, Kubernetes, another worker) and the scraper."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from starlette.types import ASGIApp

from epp.config import Config
from epp.exceptions import ConfigError
from epp.pool.objectives import Objectives
from epp.pool.pool import Pool
from epp.pool.sources import EndpointsFile, EndpointsFlag
from epp.scraping.engines import configured_engine
from epp.scraping.page_access import PageAccess
from epp.scraping.scrape import ScrapeConfig, Scraper
from epp.workers.table import FirstWorker, publish_table, read_table
from serving.workers import Place

if TYPE_CHECKING:
    from epp.kubernetes.client import Client
    from epp.kubernetes.discovery import Discovery
    from epp.kubernetes.leader import LeaderElection
    from epp.kubernetes.metrics_auth import TokenReviewer

Background = Callable[[], Coroutine[Any, Any, None]]
# Pause between looks for other workers' dispatches.
_DEMAND_S = 0.05


class Source(Protocol):
    """A source of the pool's endpoints."""

    objectives: Objectives
    """The priorities of the requests' objectives. Empty if the source declares none."""

    @property
    def is_ready(self) -> bool:
        """True if the endpoints have been read once."""

    async def run(self) -> None:
        """Keep the pool's endpoints up to date until cancelled."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The parts that keep the pool's endpoints and their metrics up to date.

    `scraper` is None where another worker scrapes. `discovery` is the source again if the source is Kubernetes.
    `election` is set where replicas elect a leader. `reviewer` is set where Kubernetes decides who may read the
    metrics port.
    """

    source: Source
    scraper: Scraper | None = None
    discovery: "Discovery | None" = None
    election: "LeaderElection | None" = None
    reviewer: "TokenReviewer | None" = None

    @property
    def background(self) -> list[Background]:
        """The tasks that run for as long as the picker serves."""
        return [part.run for part in (self.scraper, self.source, self.election) if part is not None]

    @property
    def is_ready(self) -> bool:
        """True if this picker should get requests: its endpoints are known, and it leads where leaders are elected."""
        return self.source.is_ready and (self.election is None or self.election.is_leader)

    def note_demand(self) -> None:
        """Tell the scraper that a decision needs fresh metrics."""
        if self.scraper is not None:
            self.scraper.note_demand()

    def guard_metrics(self, app: ASGIApp) -> ASGIApp:
        """Put `app` behind the reviewer, if there is one."""
        if self.reviewer is None:
            return app
        from epp.kubernetes.metrics_auth import BearerAuth

        return BearerAuth(app, self.reviewer)

    def resign(self) -> None:
        """Let another replica lead, if this one takes part in an election."""
        if self.election is not None:
            self.election.resign()


async def find_endpoints(config: Config, pool: Pool, place: Place | None, closing: AsyncExitStack) -> Endpoints:
    """Return the pool's endpoint source, and fill the pool with the endpoints that are known at once.

    Raise ConfigError when the flags name no source, or two.
    """
    if place and not place.is_first:
        first = FirstWorker(place.folder, pool)
        await first.answer()
        return Endpoints(first)
    if place:
        # An earlier first worker may have left a table. Slots in use must keep their endpoints.
        table = read_table(place.folder)
        pool.adopt_endpoints(table.endpoints if table else {})
    scraper = Scraper(pool, _scrape_config(config))
    if config.endpoints and config.endpoints_file:
        raise ConfigError("--endpoints and --endpoints-file exclude each other: give one")
    if config.endpoints:
        return Endpoints(EndpointsFlag(config.endpoints, pool), scraper)
    if config.endpoints_file:
        return Endpoints(EndpointsFile(Path(config.endpoints_file), pool), scraper)
    return await _from_kubernetes(config, pool, scraper, closing)


def share_with_workers(endpoints: Endpoints, pool: Pool, folder: Path) -> list[Background]:
    """Return the tasks that the first worker runs for the others."""

    def priorities() -> Mapping[str, int]:
        return endpoints.source.objectives.known

    return [
        partial(publish_table, folder, pool, priorities, lambda: endpoints.is_ready),
        partial(_pass_on_demand, pool, endpoints),
    ]


async def _pass_on_demand(pool: Pool, endpoints: Endpoints) -> None:
    """Note demand for fresh metrics whenever any worker has dispatched a request."""
    seen = pool.dispatched_total
    while True:
        await asyncio.sleep(_DEMAND_S)
        now = pool.dispatched_total
        if now != seen:
            endpoints.note_demand()
        seen = now


async def _from_kubernetes(config: Config, pool: Pool, scraper: Scraper, closing: AsyncExitStack) -> Endpoints:
    if not (config.pool_name or config.endpoint_selector or config.endpoint_target_ports):
        raise ConfigError(
            "no endpoints: give --pool-name NAME or --endpoint-selector for Kubernetes, or --endpoints host:port,... "
            "or --endpoints-file FILE"
        )
    try:
        from epp.kubernetes.access import connect
        from epp.kubernetes.discovery import Discovery
        from epp.kubernetes.metrics_auth import TokenReviewer
        from epp.kubernetes.targets import PoolName, parse_target
    except ImportError as error:
        raise ConfigError(f"Kubernetes needs the package {error.name}: install Headroom with its extra epp") from error
    selected = config.endpoint_selector or config.endpoint_target_ports
    target = parse_target(config.endpoint_selector, config.endpoint_target_ports) if selected else None
    client = await closing.enter_async_context(connect(config.kubeconfig))
    followed = target or PoolName(config.pool_name, config.pool_group)
    discovery = Discovery(client, followed, config.pool_namespace, pool)
    return Endpoints(
        source=discovery,
        scraper=scraper,
        discovery=discovery,
        election=_election(config, client) if config.ha_enable_leader_election else None,
        reviewer=TokenReviewer(client) if config.metrics_endpoint_auth else None,
    )


def _election(config: Config, client: "Client") -> "LeaderElection":
    from epp.kubernetes.access import own_identity, own_namespace
    from epp.kubernetes.leader import LeaderElection, lease_name

    namespace = own_namespace(os.environ) or config.pool_namespace
    name = lease_name(config.pool_namespace, config.pool_name or "selected")
    return LeaderElection(client, name, namespace, own_identity(os.environ))


def _scrape_config(config: Config) -> ScrapeConfig:
    interval_s, most_interval_s = config.refresh_metrics_interval
    return ScrapeConfig(
        engine=configured_engine(
            config.model_server_type,
            waiting=config.total_queued_requests_metric,
            running=config.total_running_requests_metric,
            kv_usage=config.kv_cache_usage_percentage_metric,
            lora=config.lora_info_metric,
            cache_info=config.cache_info_metric,
        ),
        interval_s=interval_s,
        most_interval_s=most_interval_s,
        idle_interval_s=config.idle_metrics_interval,
        staleness_s=config.metrics_staleness_threshold,
        port=config.model_server_metrics_port,
        path=config.model_server_metrics_path,
        access=PageAccess(
            config.model_server_metrics_scheme,
            verify_tls=not config.model_server_metrics_https_insecure_skip_verify,
            ca_file=config.model_server_metrics_ca_file,
            token_file=config.model_server_metrics_token_file,
        ),
    )
