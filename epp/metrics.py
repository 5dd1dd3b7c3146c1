"""The picker's Prometheus metrics: those of the gateway API's picker under its names, and this project's own."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from epp.exceptions import CODES
from epp.model_metrics import BYTE_BUCKETS, DECISION_BUCKETS_S, ModelTable

_BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Every metric of the process, in a registry of its own. `shedding` are the types of plugins that may shed."""

    def __init__(self, shedding: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self.models = ModelTable(self.registry)
        # All but the models' metrics.
        self._others = CollectorRegistry()
        self.registry.register(self._others)
        self.decision_s = self._histogram(
            "inference_extension_scheduler_e2e_duration_seconds", "Duration of a whole decision", DECISION_BUCKETS_S
        )
        self._plugin_s = self._histogram(
            "inference_extension_plugin_duration_seconds",
            "Duration of one plugin in a decision; one decision in sixteen is timed",
            DECISION_BUCKETS_S,
            ("extension_point", "plugin_type", "plugin_name"),
        )
        stage_s = self._histogram(
            "headroom_epp_decision_stage_seconds",
            "Duration of each stage of a decision: read, snapshot, predict, schedule",
            DECISION_BUCKETS_S,
            ("stage",),
        )
        self._stages = {stage: stage_s.labels(stage) for stage in ("read", "snapshot", "predict", "schedule")}
        self.prefix_hit_ratio = self._histogram(
            "inference_extension_prefix_indexer_hit_ratio",
            "Share of the prompt's blocks that the picked endpoint had received before",
            tuple(step / 10 for step in range(11)),
        )
        self.prefix_hit_bytes = self._histogram(
            "inference_extension_prefix_indexer_hit_bytes",
            "Bytes of the prompt that the picked endpoint had received before",
            (0, *BYTE_BUCKETS),
        )
        self.decisions = self._counter(
            "headroom_epp_decisions_total", "Decisions by profile and prediction source", ("profile", "source")
        )
        self.refusals = self._counter(
            "headroom_epp_refused_requests_total", "Requests the picker answered with an error", ("code",)
        )
        self.shed = self._counter(
            "headroom_epp_shed_requests_total", "Requests shed for lack of room, by admission plugin", ("plugin",)
        )
        # A series that begins with its first event shows no increase, so an alert would miss the event.
        for code in CODES:
            self.refusals.labels(code)
        for plugin_type in shedding:
            self.shed.labels(plugin_type)
        self.floods = self._counter(
            "headroom_epp_http2_floods_total", "Connections closed because of a flood of frames, by its kind", ("kind",)
        )
        self.prediction_s = self._histogram(
            "headroom_epp_prediction_duration_seconds",
            "Duration of a batched prediction",
            DECISION_BUCKETS_S,
            ("outcome",),
        )
        self.prediction_rows = self._histogram(
            "headroom_epp_prediction_rows", "Endpoints per batched prediction", _BATCH_BUCKETS
        )
        observed = self._counter(
            "headroom_epp_observed_responses_total", "Streamed responses, observed or not", ("observed",)
        )
        self._observed = {True: observed.labels("true"), False: observed.labels("false")}
        self._decisions: dict[tuple[str, str], Counter] = {}
        self._partly_read = self._counter(
            "headroom_epp_partly_read_bodies_total",
            "Requests routed by their size and the leading part of their body, by the reason",
            ("reason",),
        )
        self.slo = self._counter(
            "headroom_epp_slo_total",
            "Observed requests with an SLO, by whether it was met",
            ("objective", "latency", "met"),
        )

        self.shadow = self._counter(
            "headroom_epp_shadow_decisions_total",
            "Requests routed without prediction, by what it would have done: the same, another endpoint, or shed",
            ("choice",),
        )
        self.shadow_chances = self._counter(
            "headroom_epp_shadow_expected_total",
            "Requests expected to meet their objectives, as they were routed and as prediction would have routed them",
            ("routed",),
        )

    def note_shadow(self, choice: str, chance_made: float, chance: float) -> None:
        """Count what prediction would have done, and both probabilities that the request meets its objectives."""
        self.shadow.labels(choice).inc()
        self.shadow_chances.labels("as_was").inc(chance_made)
        self.shadow_chances.labels("by_prediction").inc(chance)

    def partly_read(self, reason: str) -> Counter:
        return self._partly_read.labels(reason)

    def observe_stage(self, stage: str, seconds: float) -> None:
        self._stages[stage].observe(seconds)

    def note_prediction(self, outcome: str, seconds: float, rows: int) -> None:
        """Count a batched prediction, answered or not."""
        self.prediction_s.labels(outcome).observe(seconds)
        self.prediction_rows.observe(rows)
        self.observe_stage("predict", seconds)

    def observe_plugin(self, extension_point: str, plugin_type: str, name: str, seconds: float) -> None:
        self._plugin_s.labels(extension_point, plugin_type, name).observe(seconds)

    def decision_counter(self, profile: str, source: str) -> Counter:
        found = self._decisions.get((profile, source))
        if found is None:
            found = self._decisions[profile, source] = self.decisions.labels(profile, source)
        return found

    def observed_counter(self, is_observed: bool) -> Counter:
        return self._observed[is_observed]

    def register_value(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Register a gauge, or a counter if `name` ends in _total, whose value `read` returns for each page."""
        self.register_collector(_ValuesElsewhere(name, description, lambda: {(): read()}))

    def register_values(self, name: str, description: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Register several such values, one per value of `label`."""
        self.register_collector(
            _ValuesElsewhere(name, description, lambda: {((label, key),): value for key, value in read().items()})
        )

    def register_collector(self, collector: Collector) -> None:
        """Register metrics that `collector` makes for each page."""
        self._others.register(collector)

    def page(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return b"".join(self._pieces())

    async def page_in_turns(self) -> bytes:
        """Return the page, rendered a family in each turn of the event loop."""
        pieces = []
        for piece in self._pieces():
            pieces.append(piece)
            await asyncio.sleep(0)
        return b"".join(pieces)

    def _pieces(self) -> Iterator[bytes]:
        for metric in self._others.collect():
            yield generate_latest(_Collected(metric))
        for page in self.models.pages():
            yield page.encode(errors="replace")

    def _counter(self, name: str, description: str, labels: Iterable[str]) -> Counter:
        return Counter(name, description, labels, registry=self._others)

    def _histogram(
        self, name: str, description: str, buckets: tuple[float, ...], labels: Iterable[str] = ()
    ) -> Histogram:
        return Histogram(name, description, labels, buckets=buckets, registry=self._others)


class _Collected(Collector):
    """One metric, for the library to write out."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return [self._metric]


class _ValuesElsewhere(Collector):
    """Values by their labels, which another part keeps."""

    def __init__(self, name: str, description: str, read: Callable[[], Mapping[Labels, float]]) -> None:
        kind = "counter" if name.endswith("_total") else "gauge"
        self._name, self._description, self._kind, self._read = name, description, kind, read

    def collect(self) -> Iterable[Metric]:
        metric = Metric(self._name.removesuffix("_total"), self._description, self._kind)
        for labels, value in self._read().items():
            metric.add_sample(self._name, dict(labels), value)
        return [metric]
