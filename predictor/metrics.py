"""The predictor's metrics page, under Triton's names and units where Triton has the metric.

`statistics` counts; this module only reads. Triton has one time series per version of a model. Here a version lives for
seconds, so a counter belongs to the model and continues when the version changes.
"""

import resource
import sys
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from predictor.engine import Engine
from predictor.repository import Repository
from predictor.shared_totals import SharedTotals, sum_totals
from predictor.statistics import BUCKETS, Statistics

# Written by hand: Triton's counter names lack the suffix _total, which prometheus_client would add.
_TRITON: tuple[tuple[str, str, Callable[[Statistics], int]], ...] = (
    ("nv_inference_request_success", "Requests answered", lambda s: s.succeeded),
    ("nv_inference_request_failure", "Requests refused", lambda s: s.failed),
    ("nv_inference_count", "Rows predicted", lambda s: s.rows),
    ("nv_inference_exec_count", "Batches executed", lambda s: s.executions),
    ("nv_inference_request_duration_us", "Total time of answered requests", lambda s: s.total_ns // 1000),
    ("nv_inference_queue_duration_us", "Time spent waiting for a thread", lambda s: s.queue_ns // 1000),
    ("nv_inference_compute_input_duration_us", "Time to decode bodies to tensors", lambda s: s.input_ns // 1000),
    ("nv_inference_compute_infer_duration_us", "Time to run the model", lambda s: s.infer_ns // 1000),
    ("nv_inference_compute_output_duration_us", "Time to encode tensors to bodies", lambda s: s.output_ns // 1000),
)


class Metrics:
    """All metrics of the process as one page."""

    def __init__(self, engine: Engine, repository: Repository, shared: SharedTotals | None = None) -> None:
        self._engine = engine
        self._shared = shared
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._registry.register(_EngineCollector(engine, repository, self.totals))

    def totals(self) -> Mapping[str, Statistics]:
        """Return the statistics by model of this process, plus those of the other workers of its port."""
        return sum_totals([self._engine.totals, *self._shared.others()]) if self._shared else self._engine.totals

    def page(self) -> bytes:
        return "".join(self._triton_lines()).encode() + generate_latest(self._registry)

    def _triton_lines(self) -> Iterator[str]:
        for name, text, value in _TRITON:
            yield f"# HELP {name} {text}\n# TYPE {name} counter\n"
            for model, total in self.totals().items():
                yield f'{name}{{model="{model}"}} {value(total)}\n'


class _EngineCollector(Collector):
    def __init__(self, engine: Engine, repository: Repository, totals: Callable[[], Mapping[str, Statistics]]) -> None:
        self._engine = engine
        self._repository = repository
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        yield from self._generation_families()
        yield from self._store_families()
        yield self._duration_family()
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        yield GaugeMetricFamily(
            "headroom_predictor_peak_resident_memory_bytes", "Peak resident memory of the process", value=peak_bytes
        )

    def _generation_families(self) -> Iterator[Metric]:
        generation = self._engine.generation
        number = generation.generation if generation else 0
        age_s = generation.age_s if generation else 0.0
        models = self._engine.models
        yield GaugeMetricFamily("headroom_predictor_ready", "1 if any model is served", value=float(bool(models)))
        yield GaugeMetricFamily("headroom_predictor_generation", "Number of the served generation", value=number)
        yield GaugeMetricFamily(
            "headroom_predictor_generation_age_seconds", "Age of the served generation", value=age_s
        )
        versions = GaugeMetricFamily("headroom_predictor_version", "Served version", labels=["model"])
        for name, served in models.items():
            versions.add_metric([name], served.default.version)
        yield versions

    def _store_families(self) -> Iterator[Metric]:
        repository = self._repository
        yield CounterMetricFamily("headroom_predictor_polls", "Polls of the model store", value=repository.polls)
        yield GaugeMetricFamily(
            "headroom_predictor_last_poll_age_seconds",
            "Seconds since the model store was last read",
            value=repository.poll_age_s,
        )
        loads = CounterMetricFamily(
            "headroom_predictor_loads", "Attempts to load new models, by outcome", labels=["outcome"]
        )
        for outcome, count in repository.loads.items():
            loads.add_metric([outcome], count)
        yield loads
        refusals = CounterMetricFamily(
            "headroom_predictor_refusals", "Failed attempts to load new models, by what refused them", labels=["reason"]
        )
        for reason, count in repository.refusals.items():
            refusals.add_metric([reason], count)
        yield refusals
        wrong = float(repository.last_error is not None)
        yield GaugeMetricFamily(
            "headroom_predictor_load_failing", "1 while the store or its newest models can't be loaded", value=wrong
        )

    def _duration_family(self) -> HistogramMetricFamily:
        name = "headroom_predictor_request_duration_seconds"
        family = HistogramMetricFamily(name, "Duration of answered requests", labels=["model"])
        for model, total in self._totals().items():
            buckets, counted = [], 0
            for power in range(BUCKETS):
                counted += total.buckets[power]
                buckets.append((f"{2**power / 1e6:g}", counted))
            buckets.append(("+Inf", total.succeeded))
            family.add_metric([model], buckets, sum_value=total.total_ns / 1e9)
        return family
