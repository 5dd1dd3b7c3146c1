"""Assembles a picker from its configuration: its background tasks and its servers' handlers."""

import asyncio
import logging
import math
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.types import ASGIApp

from epp.app import create_app
from epp.config import Config
from epp.debug_access import LocalDebug
from epp.endpoints import Background, Endpoints, find_endpoints, share_with_workers
from epp.exceptions import ConfigError
from epp.extproc.exchange import Exchange
from epp.extproc.front import HEALTH_SERVICES
from epp.extproc.health import Health
from epp.extproc.rpc import RpcClient
from epp.extproc.visibility import Visibility
from epp.gauges import register_gauges
from epp.live.access import LiveAccess
from epp.live.routes import UnderLive, create_live_app
from epp.live.trainer_history import TrainerHistory
from epp.live.view import View
from epp.metrics import Metrics
from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from epp.prediction.client import LatencyClient
from epp.prediction.embedded import EmbeddedLatencyClient
from epp.prediction.remote import RemoteLatencyClient
from epp.prediction.training import TrainingSink
from epp.reload import ReloadedFile
from epp.request.base_model import BaseModel
from epp.request.budget import ObservationBudget
from epp.request.decisions import DecisionLog
from epp.request.default_objectives import DefaultObjectives, Rule, read_default_objectives
from epp.request.director import Director
from epp.request.outcome_journal import OutcomeJournal
from epp.request.outcomes import Outcomes
from epp.request.overload_by_client import OverloadByClient
from epp.request.parsed import RequestReader
from epp.request.recent_counts import RecentCounts
from epp.request.routed import Bookkeeping
from epp.request.tokens import TokenEstimator, Tokenizer
from epp.request.try_timeout import TryTimeout
from epp.scheduling.configuration.config import DEFAULT_CONFIG, load_scheduler
from epp.scheduling.configuration.warnings import find_warnings
from epp.scheduling.plugin import Admitter, plugin_types
from epp.scheduling.plugins.profiles import SloAwareProfileHandler
from epp.scheduling.scheduler import Scheduler
from epp.trust import Trust
from epp.workers.prefix_ring import PrefixRings
from epp.workers.siblings import Siblings
from epp.workers.supervisor import pool_state, prefix_rings
from serving.token_file import open_tokens
from serving.workers import Place

logger = logging.getLogger("headroom.epp")

T = TypeVar("T")

# Pause between reads of the prefixes that other workers dispatched.
_RINGS_S = 0.02
# Pause between updates of the health service.
_HEALTH_S = 0.05


@dataclass(slots=True)
class Assembly:
    """The parts of a picker.

    `app` serves the metrics port. `own_app` answers the sibling workers. `resign` lets another replica lead, if this
    one takes part in an election. `count_flood` counts a connection that was closed for a flood, by the flood's kind.
    """

    pool: Pool
    health: Health
    new_exchange: Callable[[RpcClient], Exchange]
    app: ASGIApp
    own_app: ASGIApp
    siblings: Siblings | None
    resign: Callable[[], None]
    count_flood: Callable[[str], None]
    background: list[Background] = field(default_factory=list)


async def assemble(config: Config, place: Place | None, closing: AsyncExitStack) -> Assembly:
    """Return everything but the servers. Push whatever must be closed at the end on `closing`.

    Raise ConfigError when the configuration can't be used.
    """
    scheduler, file = _scheduling(config)
    defaults, defaults_file = _default_objectives(config)
    rings = PrefixRings(prefix_rings(place), place.index) if place else None
    pool = _pool(config, scheduler, place, rings)
    background: list[Background] = []
    if rings:
        background.append(partial(_read_prefixes, rings, pool))
    endpoints = await find_endpoints(config, pool, place, closing)
    background += endpoints.background
    if place and place.is_first:
        background += share_with_workers(endpoints, pool, place.folder)
    objectives = endpoints.source.objectives
    metrics, decisions = Metrics(_shedding()), DecisionLog(config.debug_decisions)
    trust = _trust(config, background)
    latency, training = await _prediction(config, trust, closing)
    slowdowns = pool.slowdowns if latency else None
    journal = (
        OutcomeJournal(Path(config.outcome_journal), place.index if place else 0) if config.outcome_journal else None
    )
    counts = RecentCounts() if config.live_page else None
    books = Bookkeeping(
        pool,
        Outcomes(metrics, training, slowdowns, objectives.label_of, journal, counts),
        decisions,
        ObservationBudget(config.observed_responses_per_second, config.observed_tokens_per_second),
        TokenEstimator(),
        observes_all=config.predictions_in_usage,
        base_model=BaseModel(lambda: pool.adapters.values()),
    )
    overload = OverloadByClient(config.degrade_after or math.inf)
    director = Director(
        scheduler, books, latency, _tracing(config, closing), endpoints.note_demand, is_shadow=config.shadow
    )
    tokenizer = Tokenizer(Path(config.tokenizer)) if config.tokenizer else None
    reader = RequestReader(
        books.tokens,
        tokenizer,
        objectives.priority_of,
        config.max_inspected_body,
        base_model=books.base_model,
        defaults=defaults,
    )
    if training is not None:
        background.append(training.run)
    if journal is not None:
        background.append(journal.run)
        metrics.register_value(
            "headroom_epp_outcome_journal_dropped_total", "Ended requests that no report knows", lambda: journal.dropped
        )
    if file is not None:
        background.append(partial(file.watch, _applying(director)))
    if defaults_file is not None:
        background.append(partial(defaults_file.watch, partial(setattr, defaults, "rules")))
    files = [one for one in (file, defaults_file) if one is not None]
    register_gauges(config.pool_name, metrics, pool, endpoints, overload, books.confidence, training, latency, files)
    health = Health(HEALTH_SERVICES)
    background.append(partial(_tell_health, health, endpoints))
    siblings = Siblings(place) if place else None
    app = _guarded(create_app(pool, metrics, decisions, siblings, is_profiled=config.enable_pprof), config, endpoints)
    own_app: ASGIApp = create_app(pool, metrics, decisions)
    if counts is not None:
        view = _view(config, director, counts, trust)
        own_app = UnderLive(own_app, create_live_app(view))
        tokens = open_tokens(config.live_page_token_file, "--live-page-token-file")
        app = UnderLive(app, LiveAccess(create_live_app(replace(view, siblings=siblings)), tokens))
    return Assembly(
        pool=pool,
        health=health,
        new_exchange=_exchanges(config, reader, director, overload),
        app=app,
        own_app=own_app,
        siblings=siblings,
        resign=endpoints.resign,
        count_flood=lambda kind: metrics.floods.labels(kind).inc(),
        background=background,
    )


def _shedding() -> list[str]:
    """Return the types of the plugins that may shed requests."""
    return sorted({one.type_name for one in plugin_types().values() if issubclass(one, Admitter)})


def _scheduling(config: Config) -> tuple[Scheduler, ReloadedFile[Scheduler] | None]:
    if config.config_file and config.config_text:
        raise ConfigError("--config-file and --config-text exclude each other: give one")
    if config.config_file:
        file = ReloadedFile(Path(config.config_file), partial(load_scheduler, environ=os.environ))
        scheduler = _loaded(file, "--config-file")
    else:
        file, scheduler = None, load_scheduler(config.config_text or DEFAULT_CONFIG, os.environ)
    if config.shadow:
        _check_shadow(scheduler)
    _tell_notices(scheduler)
    return scheduler, file


def _check_shadow(scheduler: Scheduler) -> None:
    if not isinstance(scheduler.handler, SloAwareProfileHandler):
        raise ConfigError(
            "--shadow needs a configuration with slo-aware-profile-handler: others route every request alike"
        )


def _default_objectives(config: Config) -> tuple[DefaultObjectives, ReloadedFile[tuple[Rule, ...]] | None]:
    if not config.default_objectives_file:
        return DefaultObjectives(), None
    file = ReloadedFile(Path(config.default_objectives_file), read_default_objectives)
    return DefaultObjectives(_loaded(file, "--default-objectives-file")), file


def _loaded(file: ReloadedFile[T], flag: str) -> T:
    try:
        return file.load()
    except ConfigError as error:
        raise ConfigError(f"{flag}: {error}") from error


def _tell_notices(scheduler: Scheduler) -> None:
    for notice in (*scheduler.notices, *find_warnings(scheduler)):
        logger.warning("%s", notice)


def _applying(director: Director) -> Callable[[Scheduler], None]:
    def apply(scheduler: Scheduler) -> None:
        if director.is_shadow:
            _check_shadow(scheduler)
        _tell_notices(scheduler)
        director.scheduler = scheduler
        prefix = scheduler.prefix
        director.books.pool.prefix_index.resize(prefix.lru_capacity_per_server, prefix.tokens_per_block)

    return apply


def _pool(config: Config, scheduler: Scheduler, place: Place | None, rings: PrefixRings | None) -> Pool:
    return Pool(
        PrefixIndex(scheduler.prefix.lru_capacity_per_server, scheduler.prefix.tokens_per_block),
        config.metrics_staleness_threshold,
        pool_state(place) if place else None,
        on_dispatch=rings.write if rings else None,
    )


async def _read_prefixes(rings: PrefixRings, pool: Pool) -> None:
    """Copy the prefixes that other workers dispatched into the pool's index."""
    while True:
        await asyncio.sleep(_RINGS_S)
        rings.read_into(pool.prefix_index)


def _trust(config: Config, background: list[Background]) -> Trust:
    trust = Trust(config.latency_ca_file)
    if config.latency_ca_file:
        background.append(trust.watch)
        if not any(url.startswith("https://") for url in (*config.prediction_urls, config.training_server_url)):
            logger.warning("--latency-ca-file has no effect: no prediction or training server has an https:// URL")
    return trust


async def _prediction(
    config: Config, trust: Trust, closing: AsyncExitStack
) -> tuple[LatencyClient | None, TrainingSink | None]:
    if not config.enable_latency_predictor:
        return None, None
    token = open_tokens(config.latency_token_file, "--latency-token-file")
    training = TrainingSink(
        config.training_server_url,
        config.latency_max_sample_size,
        config.latency_flush_interval_sec,
        config.latency_http_timeout_sec,
        trust,
        token,
    )
    client: LatencyClient
    if config.latency_client == "embedded":
        client = embedded = EmbeddedLatencyClient(
            config.model_store, config.model_sync_interval_sec, config.verify_key_file
        )
        await embedded.start()
    elif config.prediction_urls:
        client = RemoteLatencyClient(config.prediction_urls, config.prediction_timeout, trust, token)
    else:
        raise ConfigError("--prediction-server-url: at least one URL is needed")
    closing.push_async_callback(client.close)
    return client, training


def _view(config: Config, director: Director, counts: RecentCounts, trust: Trust) -> View:
    trainer = None
    if config.enable_latency_predictor:
        token = open_tokens(config.latency_token_file, "--latency-token-file")
        trainer = TrainerHistory(config.training_server_url, trust, token)
    comparison = Path(config.live_comparison_file) if config.live_comparison_file else None
    return View(config.pool_name, director, counts, trainer, comparison)


def _guarded(app: ASGIApp, config: Config, endpoints: Endpoints) -> ASGIApp:
    """Return the metrics port's app with the limits on who may read it."""
    if endpoints.reviewer is None and config.debug_access == "local":
        app = LocalDebug(app)
    return endpoints.guard_metrics(app)


def _tracing(config: Config, closing: AsyncExitStack) -> Any:
    if not config.tracing:
        return None
    try:
        from epp.request.tracing import Tracing
    except ImportError as error:
        message = f"--tracing needs OpenTelemetry's packages: install Headroom with its extra tracing ({error})"
        raise ConfigError(message) from error
    tracing = Tracing()
    closing.callback(tracing.close)
    return tracing


def _exchanges(
    config: Config, reader: RequestReader, director: Director, overload: OverloadByClient
) -> Callable[[RpcClient], Exchange]:
    visibility = Visibility(config.predictions_in_headers, config.predictions_in_usage, config.emit_endpoint_scores)
    heeds_subset = not config.disable_endpoint_subset_filter
    try_timeout = TryTimeout(config.try_timeout_factor)
    return lambda client: Exchange(
        reader,
        director,
        visibility,
        overload.of(client, client.address),
        try_timeout=try_timeout,
        heeds_subset=heeds_subset,
    )


async def _tell_health(health: Health, endpoints: Endpoints) -> None:
    """Report ready while the endpoints are known and, under leader election, this replica leads."""
    while True:
        health.set_all(endpoints.is_ready)
        await asyncio.sleep(_HEALTH_S)
