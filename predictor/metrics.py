"""The predictor's metrics: Triton's names and units where Triton has one.

Counting happens in `statistics`; here it is only read. Triton labels each version of a model, but here a version lives
for seconds: counters are of the model, and go on when another version is served.
"""

import resource
import sys
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from predictor.engine import Engine
from predictor.repository import Repository
from predictor.shared_totals import SharedTotals, summed
from predictor.statistics import BUCKETS, Statistics

# Triton's counters have no _total, which prometheus_client would add.
_TRITON: tuple[tuple[str, str, Callable[[Statistics], int]], ...] = (
    ("nv_inference_request_success", "Requests answered", lambda s: s.succeeded),
    ("nv_inference_request_failure", "Requests refused", lambda s: s.failed),
    ("nv_inference_count", "Rows predicted", lambda s: s.rows),
    ("nv_inference_exec_count", "Batches executed", lambda s: s.executions),
    ("nv_inference_request_duration_us", "Time in requests", lambda s: s.total_ns // 1000),
    ("nv_inference_queue_duration_us", "Time in the wait for a thread", lambda s: s.queue_ns // 1000),
    ("nv_inference_compute_input_duration_us", "Time from body to tensors", lambda s: s.input_ns // 1000),
    ("nv_inference_compute_infer_duration_us", "Time in the model", lambda s: s.infer_ns // 1000),
    ("nv_inference_compute_output_duration_us", "Time from tensors to body", lambda s: s.output_ns // 1000),
)


class Metrics:
    """Every metric of the process, as one page."""

    def __init__(self, engine: Engine, repository: Repository, shared: SharedTotals | None = None) -> None:
        self._engine = engine
        self._shared = shared
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._registry.register(_Served(engine, repository, self.totals))

    def totals(self) -> Mapping[str, Statistics]:
        """What this process has counted, and the other workers of its port."""
        return summed([self._engine.totals, *self._shared.others()]) if self._shared else self._engine.totals

    def page(self) -> bytes:
        return "".join(self._triton_lines()).encode() + generate_latest(self._registry)

    def _triton_lines(self) -> Iterator[str]:
        for name, text, value in _TRITON:
            yield f"# HELP {name} {text}\n# TYPE {name} counter\n"
            for model, total in self.totals().items():
                yield f'{name}{{model="{model}"}} {value(total)}\n'


class _Served(Collector):
    def __init__(self, engine: Engine, repository: Repository, totals: Callable[[], Mapping[str, Statistics]]) -> None:
        self._engine = engine
        self._repository = repository
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        yield from self._generation()
        yield from self._following()
        yield self._durations()
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        yield GaugeMetricFamily(
            "headroom_predictor_peak_resident_memory_bytes", "Most memory that was ever resident", value=peak_bytes
        )

    def _generation(self) -> Iterator[Metric]:
        generation = self._engine.generation
        number = generation.generation if generation else 0
        age_s = generation.age_s if generation else 0.0
        models = self._engine.models
        yield GaugeMetricFamily("headroom_predictor_ready", "1 when a model is served", value=float(bool(models)))
        yield GaugeMetricFamily("headroom_predictor_generation", "The generation that is served", value=number)
        yield GaugeMetricFamily("headroom_predictor_generation_age_seconds", "Its age", value=age_s)
        versions = GaugeMetricFamily("headroom_predictor_version", "The version that is served", labels=["model"])
        for name, served in models.items():
            versions.add_metric([name], served.default.version)
        yield versions

    def _following(self) -> Iterator[Metric]:
        repository = self._repository
        yield CounterMetricFamily("headroom_predictor_polls", "Looks at the model store", value=repository.polls)
        loads = CounterMetricFamily("headroom_predictor_loads", "Attempts to load what is new", labels=["outcome"])
        for outcome, count in repository.loads.items():
            loads.add_metric([outcome], count)
        yield loads
        wrong = float(repository.last_error is not None)
        yield GaugeMetricFamily("headroom_predictor_load_failing", "1 while the newest can't be served", value=wrong)

    def _durations(self) -> HistogramMetricFamily:
        name = "headroom_predictor_request_duration_seconds"
        family = HistogramMetricFamily(name, "Requests by their time, in powers of two", labels=["model"])
        for model, total in self._totals().items():
            buckets, counted = [], 0
            for power in range(BUCKETS):
                counted += total.buckets[power]
                buckets.append((f"{2**power / 1e6:g}", counted))
            buckets.append(("+Inf", total.succeeded))
            family.add_metric([model], buckets, sum_value=total.total_ns / 1e9)
        return family
