"""Metrics whose values other parts keep. They are read whenever the metrics page is requested."""

import os
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from epp.endpoints import Endpoints
from epp.metrics import Metrics
from epp.pool.pool import Pool
from epp.prediction.client import LatencyClient
from epp.prediction.confidence import Confidence
from epp.prediction.embedded import EmbeddedLatencyClient
from epp.prediction.remote import RemoteLatencyClient
from epp.prediction.training import TrainingSink
from epp.reload import ReloadedFile
from epp.request.overload_by_client import OverloadByClient
from epp.scheduling import guard
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
    overload: OverloadByClient,
    confidence: Confidence,
    training: TrainingSink | None,
    latency: LatencyClient | None,
    files: Sequence[ReloadedFile[Any]],
) -> None:
    """Register the counts of each part under their metric names."""
    metrics.register_collector(_PoolGauges(pool_name, pool))
    metrics.register_value("headroom_epp_in_flight_requests", "Requests in flight", lambda: pool.own_requests.in_flight)
    metrics.register_value(
        "inference_extension_prefix_indexer_size", "Blocks in the prefix index", lambda: len(pool.prefix_index)
    )
    metrics.register_value(
        "headroom_epp_overload_level",
        "Highest level of picks of all clients: 0 normal, 1 default, 2 random",
        lambda: overload.level,
    )
    picks = "Picks by level: normal, default (without predictions), random"
    metrics.register_values(
        "headroom_epp_overload_picks_total",
        picks,
        "level",
        lambda: {level.label: count for level, count in overload.picks.items()},
    )
    metrics.register_value(
        "headroom_epp_overload_given_up_total",
        "Requests that went back to the gateway without a pick, because they had waited too long",
        lambda: overload.given_up,
    )
    metrics.register_value(
        "headroom_epp_predictions_doubted",
        "1 while predictions are too far from what is observed to decide, else 0",
        lambda: not confidence.may_decide,
    )
    if training is not None:
        _register_training(metrics, training)
    if isinstance(latency, RemoteLatencyClient):
        paused = "1 while requests to this prediction server are paused, else 0"
        metrics.register_values("headroom_epp_prediction_server_paused", paused, "url", latency.paused)
    if isinstance(latency, EmbeddedLatencyClient):
        metrics.register_value(
            "headroom_epp_model_generation", "Model generation in use for predictions", lambda: latency.generation
        )
        refused = "Failed attempts to load new models, by what refused them"
        metrics.register_values("headroom_epp_model_refusals_total", refused, "reason", lambda: latency.refusals)
    metrics.register_values("headroom_epp_plugin_faults_total", "Plugin failures", "type", lambda: guard.FAULTS)
    if endpoints.scraper is not None:
        _register_scraping(metrics, endpoints.scraper)
    if endpoints.discovery is not None:
        _register_kubernetes(metrics, endpoints.discovery, endpoints.election)
    if files:
        metrics.register_value(
            "headroom_epp_config_reloads_total",
            "Configurations applied after the start",
            lambda: sum(file.reloads for file in files),
        )
        metrics.register_value(
            "headroom_epp_config_reload_failures_total",
            "Changed configurations that were refused",
            lambda: sum(file.failures for file in files),
        )


class _PoolGauges(Collector):
    """The pool's scraped metrics, without endpoints whose metrics are too old unless all are too old."""

    def __init__(self, name: str, pool: Pool) -> None:
        self._name = name
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        seen = self._pool.snapshot(Request("", ""))
        averages = {
            "inference_pool_average_kv_cache_utilization": (
                "Mean KV cache utilization of the endpoints, 0 to 1",
                seen.kv_usage,
            ),
            "inference_pool_average_queue_size": ("Mean number of queued requests per endpoint", seen.waiting),
        }
        for name, (description, values) in averages.items():
            gauge = GaugeMetricFamily(name, description, labels=["name"])
            gauge.add_metric([self._name], float(values.mean()) if len(seen) else 0.0)
            yield gauge
        ready = GaugeMetricFamily("inference_pool_ready_pods", "Endpoints in the pool", labels=["name"])
        ready.add_metric([self._name], len(self._pool))
        yield ready
        queues = GaugeMetricFamily(
            "inference_pool_per_pod_queue_size", "Queued requests of the endpoint", labels=["name", "model_server_pod"]
        )
        for endpoint, waiting in zip(seen.endpoints, seen.waiting.tolist(), strict=True):
            queues.add_metric([self._name, endpoint.name], waiting)
        yield queues
        slowdowns = GaugeMetricFamily(
            "headroom_epp_endpoint_slowdown", "Ratio of recent latencies to predicted ones", labels=["endpoint"]
        )
        for endpoint, slowdown in zip(seen.endpoints, seen.slowdown.tolist(), strict=True):
            slowdowns.add_metric([endpoint.name], slowdown)
        yield slowdowns
        failing = GaugeMetricFamily(
            "headroom_epp_endpoint_left_out_seconds",
            "Seconds for which an endpoint that fails its requests gets none",
            labels=["endpoint"],
        )
        endpoints = self._pool.endpoints
        for slot, seconds in self._pool.failures.pauses_s().items():
            if slot in endpoints:
                failing.add_metric([endpoints[slot].name], seconds)
        yield failing
        info = GaugeMetricFamily(
            "inference_extension_info", "Build of the picker; the value is always 1", labels=["commit", "build_ref"]
        )
        info.add_metric([os.environ.get("HEADROOM_COMMIT", "unknown"), version("headroom")], 1)
        yield info


def _register_training(metrics: Metrics, training: TrainingSink) -> None:
    prefix = "headroom_epp_training_rows"
    metrics.register_value(f"{prefix}_queued", "Training rows waiting to be sent", lambda: len(training))
    metrics.register_value(f"{prefix}_sent_total", "Training rows that the trainer accepted", lambda: training.sent)
    metrics.register_values(f"{prefix}_dropped_total", "Training rows lost", "reason", lambda: training.lost)
    metrics.register_value(
        "headroom_epp_training_failures_total",
        "Failed sends of training rows, to be tried again",
        lambda: training.failed_sends,
    )


def _register_scraping(metrics: Metrics, scraper: Scraper) -> None:
    prefix, counts = "headroom_epp_scrape", scraper.counts
    metrics.register_value(f"{prefix}s_total", "Metrics pages read", lambda: counts.pages)
    metrics.register_values(f"{prefix}_failures_total", "Scrapes that failed", "kind", lambda: counts.failures)
    metrics.register_value(f"{prefix}_bytes_total", "Bytes of metrics pages read", lambda: counts.page_bytes)
    metrics.register_value(
        f"{prefix}_rejected_values_total", "Scraped values rejected as implausible", lambda: counts.rejected_values
    )
    metrics.register_value(f"{prefix}_stale_endpoints", "Endpoints whose metrics are too old", lambda: scraper.stale)
    interval = "Present time between two scrapes of the endpoint"
    metrics.register_values(f"{prefix}_interval_seconds", interval, "endpoint", lambda: scraper.intervals_s)
    found = "Share of prompt tokens that the endpoint has found in its cache since it started, by its own metrics"
    metrics.register_values("headroom_epp_endpoint_prefix_hit_ratio", found, "endpoint", lambda: scraper.hit_ratios)
    metrics.register_value(f"{prefix}_max_age_seconds", "Age of the oldest metrics", lambda: scraper.max_age_s)


def _register_kubernetes(metrics: Metrics, discovery: "Discovery", election: "LeaderElection | None") -> None:
    prefix, counts = "headroom_epp_kubernetes", discovery.counts
    metrics.register_value(f"{prefix}_events_total", "Watch events received", lambda: counts.events)
    metrics.register_value(f"{prefix}_lists_total", "Full lists requested", lambda: counts.lists)
    metrics.register_value(f"{prefix}_watches_total", "Watches started", lambda: counts.watches)
    metrics.register_value(
        f"{prefix}_expired_total", "Watches whose resource version had expired", lambda: counts.expired
    )
    metrics.register_value(
        f"{prefix}_failures_total", "Requests to the Kubernetes API that failed", lambda: counts.failures
    )
    metrics.register_value(
        f"{prefix}_pool_changes_total", "Changes of the pool's endpoints", lambda: discovery.publications
    )
    if election is not None:
        metrics.register_value(
            "headroom_epp_is_leader", "1 while this replica leads, else 0", lambda: election.is_leader
        )
        metrics.register_value(
            "headroom_epp_leader_transitions_total",
            "Times this replica began or ceased to lead",
            lambda: election.transitions,
        )
