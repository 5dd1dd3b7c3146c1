"""Where the pool's endpoints come from: flags, a file, Kubernetes or another worker; and who scrapes them."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp

from epp.config import Config
from epp.exceptions import ConfigError
from epp.pool.objectives import Objectives
from epp.pool.pool import Pool
from epp.pool.sources import parse_endpoints, read_endpoints, watch_endpoints
from epp.scraping.engines import configured_engine
from epp.scraping.scrape import ScrapeConfig, Scraper
from epp.workers.supervisor import Place
from epp.workers.table import Table, follow_table, publish_table, read_table

if TYPE_CHECKING:
    from epp.kubernetes.client import Client
    from epp.kubernetes.discovery import Discovery
    from epp.kubernetes.leader import LeaderElection

Background = Callable[[], Coroutine[Any, Any, None]]
_DEMAND_S = 0.05


@dataclass(slots=True)
class Source:
    """What keeps the pool as it should be, running in the `background`.

    `wanted` is called at every decision; `guarded` puts the metrics port behind whoever checks who may read it;
    `resign` lets another replica lead, where they elect one.
    """

    objectives: Objectives = field(default_factory=Objectives)
    background: list[Background] = field(default_factory=list)
    is_ready: Callable[[], bool] = lambda: True
    wanted: Callable[[], None] = lambda: None
    guarded: Callable[[ASGIApp], ASGIApp] = lambda app: app
    resign: Callable[[], None] = lambda: None
    scraper: Scraper | None = None
    discovery: "Discovery | None" = None
    election: "LeaderElection | None" = None


async def find_endpoints(config: Config, pool: Pool, place: Place | None, closing: AsyncExitStack) -> Source:
    """Fills the pool with what is known at once. ConfigError when the flags don't say where endpoints come from."""
    if place and not place.is_first:
        return await _follow_first_worker(pool, place)
    source = Source()
    if place:
        # Of the worker that was the first before this one: slots in use must keep their endpoints.
        table = read_table(place.folder)
        pool.adopt_endpoints(table.endpoints if table else {})
    _scrape(config, pool, source)
    if config.endpoints and config.endpoints_file:
        raise ConfigError("--endpoints and --endpoints-file exclude each other: give one")
    if config.endpoints:
        pool.replace_endpoints(parse_endpoints(config.endpoints))
    elif config.endpoints_file:
        path = Path(config.endpoints_file)
        pool.replace_endpoints(read_endpoints(path))
        source.background.append(partial(watch_endpoints, path, pool))
    else:
        await _follow_kubernetes(config, pool, source, closing)
    if place:
        source.background += [
            partial(publish_table, place.folder, pool, lambda: source.objectives.known, lambda: source.is_ready()),
            partial(_pass_on_demand, pool, source.wanted),
        ]
    return source


async def _follow_first_worker(pool: Pool, place: Place) -> Source:
    """Returns when the first worker has said what there is: before, this one could only refuse."""
    while (first := read_table(place.folder)) is None:  # noqa: ASYNC110 (another process writes it)
        await asyncio.sleep(_DEMAND_S)
    source = Source()
    ready = False

    def adopt(table: Table) -> None:
        nonlocal ready
        ready = table.is_ready
        pool.adopt_endpoints(table.endpoints)
        pool.adopt_adapters(table.adapters)
        source.objectives.replace(table.priorities)

    adopt(first)
    source.is_ready = lambda: ready
    source.background.append(partial(follow_table, place.folder, adopt))
    return source


def _scrape(config: Config, pool: Pool, source: Source) -> None:
    scraper = Scraper(pool, _scrape_config(config))
    source.scraper, source.wanted = scraper, scraper.wanted
    source.background.append(scraper.run)


async def _pass_on_demand(pool: Pool, wanted: Callable[[], None]) -> None:
    """Other workers' decisions want fresh metrics as much as this one's."""
    seen = pool.dispatched_total
    while True:
        await asyncio.sleep(_DEMAND_S)
        now = pool.dispatched_total
        if now != seen:
            wanted()
        seen = now


async def _follow_kubernetes(config: Config, pool: Pool, source: Source, closing: AsyncExitStack) -> None:
    if not (config.pool_name or config.endpoint_selector or config.endpoint_target_ports):
        raise ConfigError(
            "no endpoints: give --pool-name NAME or --endpoint-selector for Kubernetes, or --endpoints host:port,... "
            "or --endpoints-file FILE"
        )
    try:
        from epp.kubernetes.access import connect
        from epp.kubernetes.discovery import Discovery
        from epp.kubernetes.targets import PoolName, parse_target
    except ImportError as error:
        raise ConfigError(f"Kubernetes needs the package {error.name}: pip install 'headroom[epp]'") from error
    selected = config.endpoint_selector or config.endpoint_target_ports
    target = parse_target(config.endpoint_selector, config.endpoint_target_ports) if selected else None
    client = await closing.enter_async_context(connect(config.kubeconfig))
    discovery = Discovery(
        client,
        target or PoolName(config.pool_name, config.pool_group),
        config.pool_namespace,
        pool,
        source.objectives,
    )
    source.discovery = discovery
    source.background.append(discovery.run)
    source.is_ready = lambda: discovery.ready
    if config.ha_enable_leader_election:
        _elect(config, client, source)
    if config.metrics_endpoint_auth:
        _guard(client, source)


def _elect(config: Config, client: "Client", source: Source) -> None:
    from epp.kubernetes.access import own_identity, own_namespace
    from epp.kubernetes.leader import LeaderElection, lease_name

    namespace = own_namespace(os.environ) or config.pool_namespace
    name = lease_name(config.pool_namespace, config.pool_name or "selected")
    election = LeaderElection(client, name, namespace, own_identity(os.environ))
    synced = source.is_ready
    source.election, source.resign = election, election.resign
    source.background.append(election.run)
    source.is_ready = lambda: synced() and election.is_leader


def _guard(client: "Client", source: Source) -> None:
    from epp.kubernetes.metrics_auth import BearerAuth, TokenReviewer

    reviewer = TokenReviewer(client)
    source.guarded = lambda app: BearerAuth(app, reviewer)


def _scrape_config(config: Config) -> ScrapeConfig:
    return ScrapeConfig(
        engine=configured_engine(
            config.model_server_type,
            waiting=config.total_queued_requests_metric,
            running=config.total_running_requests_metric,
            kv_usage=config.kv_cache_usage_percentage_metric,
            lora=config.lora_info_metric,
        ),
        interval_s=config.refresh_metrics_interval,
        idle_interval_s=config.idle_metrics_interval,
        staleness_s=config.metrics_staleness_threshold,
        scheme=config.model_server_metrics_scheme,
        port=config.model_server_metrics_port,
        path=config.model_server_metrics_path,
        verify_tls=not config.model_server_metrics_https_insecure_skip_verify,
    )
