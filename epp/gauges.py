"""Metrics that are kept elsewhere, and read when the page is asked for."""

import os
from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from epp.endpoints import Endpoints
from epp.metrics import Metrics
from epp.pool.pool import Pool
from epp.prediction.client import LatencyClient
from epp.prediction.embedded import EmbeddedLatencyClient
from epp.prediction.remote import RemoteLatencyClient
from epp.prediction.training import TrainingSink
from epp.scheduling import guard
from epp.scheduling.configuration.reload import SchedulerFile
from epp.scheduling.request import Request
from epp.scraping.scrape import Scraper

if TYPE_CHECKING:
    from epp.kubernetes.discovery import Discovery
    from epp.kubernetes.leader import LeaderElection


def register_gauges(
    pool_name: str,
    metrics: Metrics,
    pool: Pool,
    endpoints: Endpoints,
    training: TrainingSink | None,
    latency: LatencyClient | None,
    file: SchedulerFile | None,
) -> None:
    """Shows each part's own counts under their names."""
    metrics.register_collector(_PoolGauges(pool_name, pool))
    metrics.register_value("headroom_epp_in_flight_requests", "Requests in flight", lambda: pool.in_flight_total)
    metrics.register_value(
        "inference_extension_prefix_indexer_size", "Blocks in the prefix index", lambda: len(pool.prefix_index)
    )
    if training is not None:
        _register_training(metrics, training)
    if isinstance(latency, RemoteLatencyClient):
        paused = "Prediction servers that aren't asked just now"
        metrics.register_values("headroom_epp_prediction_server_paused", paused, "url", latency.paused)
    if isinstance(latency, EmbeddedLatencyClient):
        metrics.register_value("headroom_epp_model_generation", "Generation that predicts", lambda: latency.generation)
    metrics.register_values("headroom_epp_plugin_faults_total", "Plugins that failed", "type", lambda: guard.FAULTS)
    if endpoints.scraper is not None:
        _register_scraping(metrics, endpoints.scraper)
    if endpoints.discovery is not None:
        _register_kubernetes(metrics, endpoints.discovery, endpoints.election)
    if file is not None:
        metrics.register_value(
            "headroom_epp_config_reloads_total", "Configurations applied later", lambda: file.reloads
        )
        metrics.register_value(
            "headroom_epp_config_reload_failures_total", "Those that were wrong", lambda: file.failures
        )


class _PoolGauges(Collector):
    """The pool as scraped; endpoints whose metrics are too old don't count, unless all are."""

    def __init__(self, name: str, pool: Pool) -> None:
        self._name = name
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        seen = self._pool.snapshot(Request("", ""))
        averages = {
            "inference_pool_average_kv_cache_utilization": ("Mean use of the KV cache", seen.kv_usage),
            "inference_pool_average_queue_size": ("Mean number of queued requests", seen.waiting),
        }
        for name, (description, values) in averages.items():
            gauge = GaugeMetricFamily(name, description, labels=["name"])
            gauge.add_metric([self._name], float(values.mean()) if len(seen) else 0.0)
            yield gauge
        ready = GaugeMetricFamily("inference_pool_ready_pods", "Endpoints in the pool", labels=["name"])
        ready.add_metric([self._name], len(self._pool))
        yield ready
        queues = GaugeMetricFamily(
            "inference_pool_per_pod_queue_size", "Queued requests", labels=["name", "model_server_pod"]
        )
        for endpoint, waiting in zip(seen.endpoints, seen.waiting.tolist(), strict=True):
            queues.add_metric([self._name, endpoint.name], waiting)
        yield queues
        slowdowns = GaugeMetricFamily(
            "headroom_epp_endpoint_slowdown", "Latencies over what the models know of the endpoint", labels=["endpoint"]
        )
        for endpoint, slowdown in zip(seen.endpoints, seen.slowdown.tolist(), strict=True):
            slowdowns.add_metric([endpoint.name], slowdown)
        yield slowdowns
        info = GaugeMetricFamily("inference_extension_info", "The build", labels=["commit", "build_ref"])
        info.add_metric([os.environ.get("HEADROOM_COMMIT", "unknown"), version("headroom")], 1)
        yield info


def _register_training(metrics: Metrics, training: TrainingSink) -> None:
    prefix = "headroom_epp_training_rows"
    metrics.register_value(f"{prefix}_queued", "Rows waiting to be sent", lambda: len(training))
    metrics.register_value(f"{prefix}_sent_total", "Rows that the trainer took", lambda: training.sent)
    metrics.register_values(f"{prefix}_dropped_total", "Rows lost", "reason", lambda: training.lost)
    metrics.register_value(
        "headroom_epp_training_failures_total", "Sends to be tried again", lambda: training.failed_sends
    )


def _register_scraping(metrics: Metrics, scraper: Scraper) -> None:
    prefix, counts = "headroom_epp_scrape", scraper.counts
    metrics.register_value(f"{prefix}s_total", "Metrics pages read", lambda: counts.pages)
    metrics.register_values(f"{prefix}_failures_total", "Scrapes that failed", "kind", lambda: counts.failures)
    metrics.register_value(f"{prefix}_bytes_total", "Bytes of metrics pages read", lambda: counts.page_bytes)
    metrics.register_value(f"{prefix}_rejected_values_total", "Values not believed", lambda: counts.rejected_values)
    metrics.register_value(f"{prefix}_stale_endpoints", "Endpoints whose metrics are too old", lambda: scraper.stale)
    metrics.register_value(f"{prefix}_max_age_seconds", "Age of the oldest metrics", lambda: scraper.max_age_s)


def _register_kubernetes(metrics: Metrics, discovery: "Discovery", election: "LeaderElection | None") -> None:
    prefix, counts = "headroom_epp_kubernetes", discovery.counts
    metrics.register_value(f"{prefix}_events_total", "Changes that were seen", lambda: counts.events)
    metrics.register_value(f"{prefix}_lists_total", "Full listings", lambda: counts.lists)
    metrics.register_value(f"{prefix}_watches_total", "Watches begun", lambda: counts.watches)
    metrics.register_value(f"{prefix}_expired_total", "Watches that were too late to go on", lambda: counts.expired)
    metrics.register_value(f"{prefix}_failures_total", "Requests that failed", lambda: counts.failures)
    metrics.register_value(f"{prefix}_pool_changes_total", "Changes of the endpoints", lambda: discovery.publications)
    if election is not None:
        metrics.register_value("headroom_epp_is_leader", "Whether this replica leads", lambda: election.is_leader)
        metrics.register_value(
            "headroom_epp_leader_transitions_total", "It began or ceased to", lambda: election.transitions
        )
