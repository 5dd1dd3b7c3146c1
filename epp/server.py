"""The picker's life: put the parts together, serve until a signal comes, let open streams end."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import uvicorn
from starlette.applications import Starlette

from epp.app import create_app
from epp.config import Config
from epp.decisions import DecisionLog
from epp.director import Director
from epp.exceptions import ConfigError
from epp.extproc import grpc_front
from epp.extproc.exchange import Exchange
from epp.extproc.visibility import Visibility
from epp.latency.client import LatencyClient
from epp.latency.embedded import EmbeddedLatencyClient
from epp.latency.remote import RemoteLatencyClient
from epp.latency.training import TrainingSink
from epp.metrics import Metrics
from epp.outcomes import Outcomes
from epp.pool.engines import configured_engine
from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from epp.pool.scrape import ScrapeConfig, Scraper
from epp.pool.sources import parse_endpoints, read_endpoints, watch_endpoints
from epp.responses import Responses
from epp.sampling import ObservationBudget
from epp.scheduling.config import DEFAULT_CONFIG, load_scheduler
from epp.tokens import Tokenizer

logger = logging.getLogger("headroom.epp")

Background = Coroutine[Any, Any, None]


async def serve(config: Config) -> None:
    """Runs until SIGTERM or SIGINT. ConfigError or OSError when it can't start."""
    logger.info("starting with %s", config)
    stopped = _signalled()
    async with AsyncExitStack() as closing:
        scheduler = load_scheduler(_scheduling_text(config), os.environ)
        pool = Pool(PrefixIndex(scheduler.prefix.lru_capacity_per_server), config.metrics_staleness_threshold)
        watched = _fill(pool, config)
        metrics, decisions = Metrics(), DecisionLog(config.debug_decisions)
        scraper = Scraper(pool, _scrape_config(config))
        latency, training = await _predictor(config)
        if latency is not None:
            closing.push_async_callback(latency.close)
        outcomes = Outcomes(metrics, training)
        director = Director(
            pool=pool,
            scheduler=scheduler,
            metrics=metrics,
            outcomes=outcomes,
            decisions=decisions,
            latency=latency,
            tokenizer=Tokenizer(Path(config.tokenizer)) if config.tokenizer else None,
        )
        visibility = Visibility(config.predictions_in_headers, config.predictions_in_usage)
        budget = ObservationBudget(config.observed_responses_per_second)
        responses = Responses(pool, metrics, outcomes, budget, director.tokens, follows_all=visibility.in_usage)
        _follow(metrics, pool, training, scraper)
        background = [scraper.run()]
        if watched is not None:
            background.append(watch_endpoints(watched, pool))
        if training is not None:
            background.append(training.run())
        app = create_app(pool, metrics, decisions)
        await _run(config, app, pool, lambda: Exchange(director, responses, visibility), background, stopped)


async def _run(
    config: Config,
    app: Starlette,
    pool: Pool,
    new_exchange: Callable[[], Exchange],
    background: list[Background],
    stopped: asyncio.Event,
) -> None:
    """Serves until a signal comes, then lets open streams end."""
    tasks = [asyncio.create_task(coroutine) for coroutine in background]
    servers: list[grpc.aio.Server] = []
    try:
        web = _WebServer(uvicorn.Config(app, log_level="warning", lifespan="off"))
        tasks.append(asyncio.create_task(web.serve([_listen(config.host, config.metrics_port)])))
        servers = await grpc_front.start(config, new_exchange)
        logger.info("ready: ext_proc on %d, metrics on %d", config.grpc_port, config.metrics_port)
        await _until(stopped, tasks)
    finally:
        logger.info("stopping: %d requests in flight", pool.in_flight_total)
        await asyncio.gather(*(server.stop(config.drain_timeout) for server in servers))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _signalled() -> asyncio.Event:
    """Set by the signals that ask the process to end, from now on: one may come before anything is served."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


async def _until(stopped: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Returns once stopped; raises what ended a task that should have gone on."""
    waiter = asyncio.create_task(stopped.wait())
    done, _ = await asyncio.wait([waiter, *tasks], return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    for task in done - {waiter}:
        task.result()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise ConfigError(f"can't listen on {host}:{port}: {error.strerror}") from error


class _WebServer(uvicorn.Server):
    """Leaves the signals to the whole process, whose end it is not alone to decide."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _scheduling_text(config: Config) -> str:
    if config.config_file and config.config_text:
        raise ConfigError("--config-file and --config-text exclude each other: give one")
    if config.config_file:
        try:
            return Path(config.config_file).read_text()
        except OSError as error:
            raise ConfigError(f"--config-file: can't read {config.config_file}: {error.strerror}") from error
    return config.config_text or DEFAULT_CONFIG


def _fill(pool: Pool, config: Config) -> Path | None:
    """Fills the pool; returns the file that is to be watched, if it came from one."""
    if config.endpoints and config.endpoints_file:
        raise ConfigError("--endpoints and --endpoints-file exclude each other: give one")
    if config.endpoints:
        pool.replace_endpoints(parse_endpoints(config.endpoints))
        return None
    if config.endpoints_file:
        path = Path(config.endpoints_file)
        pool.replace_endpoints(read_endpoints(path))
        return path
    raise ConfigError("no endpoints: give --endpoints host:port,... or --endpoints-file FILE")


async def _predictor(config: Config) -> tuple[LatencyClient | None, TrainingSink | None]:
    if not config.enable_latency_predictor:
        return None, None
    training = TrainingSink(
        config.training_server_url,
        config.latency_max_sample_size,
        config.latency_flush_interval_sec,
        config.latency_http_timeout_sec,
    )
    if config.latency_client == "embedded":
        embedded = EmbeddedLatencyClient(config.model_store, config.model_sync_interval_sec)
        await embedded.start()
        return embedded, training
    if not config.prediction_urls:
        raise ConfigError("--prediction-server-url: at least one URL is needed")
    return RemoteLatencyClient(config.prediction_urls, config.prediction_timeout), training


def _scrape_config(config: Config) -> ScrapeConfig:
    return ScrapeConfig(
        engine=configured_engine(
            "vllm",
            waiting=config.total_queued_requests_metric,
            running=config.total_running_requests_metric,
            kv_usage=config.kv_cache_usage_percentage_metric,
        ),
        staleness_s=config.metrics_staleness_threshold,
        interval_s=config.refresh_metrics_interval,
        scheme=config.model_server_metrics_scheme,
        port=config.model_server_metrics_port,
        path=config.model_server_metrics_path,
        verify_tls=not config.model_server_metrics_https_insecure_skip_verify,
    )


def _follow(metrics: Metrics, pool: Pool, training: TrainingSink | None, scraper: Scraper) -> None:
    metrics.follow("inference_pool_ready_pods", "Endpoints in the pool", lambda: len(pool))
    metrics.follow("headroom_epp_in_flight_requests", "Requests in flight", lambda: pool.in_flight_total)
    metrics.follow("headroom_epp_prefix_index_blocks", "Blocks in the prefix index", lambda: len(pool.prefix_index))
    metrics.follow("headroom_epp_scrapes", "Metrics pages read", lambda: scraper.counts.pages)
    metrics.follow(
        "headroom_epp_scrape_failures", "Metrics pages that could not be read", lambda: scraper.counts.failed
    )
    if training is not None:
        metrics.follow("headroom_epp_training_rows_queued", "Rows waiting to be sent", lambda: len(training))
        metrics.follow("headroom_epp_training_rows_sent", "Rows that the trainer took", lambda: training.sent)
        metrics.follow("headroom_epp_training_rows_dropped", "Rows lost to a full queue", lambda: training.dropped)
