"""The trainer's metrics, under the names of llm-d's training server where it has one, else under Headroom's own."""

import time
from collections import deque
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from trainer.gate import TESTS
from trainer.prefixes import RANGES, PrefixSummary
from trainer.quarantine import QUARANTINE_REASONS
from trainer.settings import FitSettings
from trainer.training_pass import PassResult
from trainer.window import KV_BUCKETS, QUEUE_BUCKETS, Window

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_PREFIX = "headroom_trainer"
# What can fail.
_STAGES = ("read", "lead", "fit", "publish", "pass", "journal", "busy")

# Number of samples by (queue, KV cache, prefix) bucket.
Counts = Mapping[tuple[int, int, int], int]


class Metrics:
    """All metrics of the process, in their own registry."""

    def __init__(self, window: Window, fit: FitSettings) -> None:
        self.registry = registry = CollectorRegistry()
        self.rows = Counter(f"{_PREFIX}_rows", "Samples received, by fate", ("fate",), registry=registry)
        self.passes = Counter(f"{_PREFIX}_passes", "Training passes by outcome", ("outcome",), registry=registry)
        self.failures = Counter(
            f"{_PREFIX}_failures",
            "Failures by stage: reading the store, leading it, a fit, a publication, a pass or the journal",
            ("stage",),
            registry=registry,
        )
        self.refusals = Counter(
            f"{_PREFIX}_refusals", "Models that the gate refused", ("model", "reason"), registry=registry
        )
        self.rollbacks = Counter(
            f"{_PREFIX}_rollbacks",
            "Published models that were worse than their predecessors on rows that arrived since",
            ("model",),
            registry=registry,
        )
        self.store_repairs = Counter(
            f"{_PREFIX}_store_repairs", "Damaged pointers of the model store that were replaced", registry=registry
        )
        self.store_replacements = Counter(
            f"{_PREFIX}_store_replacements",
            "Times that the model store lost the generation that this trainer published last",
            registry=registry,
        )
        self.law_changes = Counter(
            f"{_PREFIX}_law_changes",
            "Detected changes of the relation between features and latency",
            ("model",),
            registry=registry,
        )
        self.seconds = Histogram(
            f"{_PREFIX}_seconds", "Duration of each stage, in seconds", ("stage",), buckets=_SECONDS, registry=registry
        )
        self._drift = Gauge(
            f"{_PREFIX}_drift_score",
            "Standard errors by which the served model's residuals on the newest samples differ from earlier ones",
            ("model",),
            registry=registry,
        )
        self._doubted = Gauge(
            f"{_PREFIX}_doubted_rows",
            "Training rows that the last fit counted less or shorter: too many rows lie too far from the median",
            ("model",),
            registry=registry,
        )
        self._generation = Gauge(f"{_PREFIX}_generation", "Number of the newest generation", registry=registry)
        self._published_at = Gauge(
            f"{_PREFIX}_last_publication_timestamp_seconds",
            "Unix time at which the newest generation was published",
            registry=registry,
        )
        self._trees = Gauge(f"{_PREFIX}_trees", "Trees of the newest published model", ("model",), registry=registry)
        self._scores = Gauge(
            f"{_PREFIX}_holdout", "Holdout scores of the newest fitted model", ("model", "score"), registry=registry
        )
        # A series that begins with its first event shows no increase, so an alert would miss the event.
        for stage in _STAGES:
            self.failures.labels(stage)
        for model in window.targets:
            self.rollbacks.labels(model)
            self.law_changes.labels(model)
            for test in TESTS:
                self.refusals.labels(model, test)
        self._window = _WindowCollector(window)
        self._last_passes = _PassCollector(list(window.targets), fit)
        for collector in (self._window, self._last_passes):
            registry.register(collector)

    def watch_quarantine(self, counts: Mapping[str, int]) -> None:
        """Show these counts by reason from now on."""
        self._window.quarantined = counts

    def page(self) -> bytes:
        return generate_latest(self.registry)

    def record_pass(self, result: PassResult) -> None:
        self.passes.labels(result.outcome).inc()
        if result.failed_at:
            self.failures.labels(result.failed_at).inc()
        if result.generation is not None:
            self._generation.set(result.generation.generation)
            self._published_at.set(result.generation.published_at.timestamp())
        for stage, seconds in result.seconds.items():
            self.seconds.labels(stage).observe(seconds)
        for model, fitted in result.fitted.items():
            self._drift.labels(model).set(fitted.drift_score)
            self._doubted.labels(model).set(fitted.doubted_rows)
            if fitted.refusal:
                self.refusals.labels(model, fitted.refused_for).inc()
            for score, value in fitted.manifest.holdout_scores.items():
                self._scores.labels(model, score).set(value)
        for model, fitted in result.published.items():
            self._trees.labels(model).set(fitted.trees)
        self._last_passes.record_pass(result)

    def record_prefixes(self, summary: PrefixSummary | None) -> None:
        self._window.prefixes = summary

    def record_batch(self, rows: int, new: bool, seconds: float) -> None:
        """Count a batch and its time; `new` is false for a repeated batch."""
        self.rows.labels("accepted" if new else "repeated").inc(rows)
        self.seconds.labels("ingest").observe(seconds)
        if new and self._window.waiting_since is None:
            self._window.waiting_since = time.monotonic()

    def start_pass(self) -> None:
        """Reset the ingestion lag: the pass sees all samples received so far."""
        self._window.waiting_since = None


class _WindowCollector(Collector):
    """The window's sizes, counted when the page is requested."""

    def __init__(self, window: Window) -> None:
        self._targets = window.targets
        self.prefixes: PrefixSummary | None = None
        self.waiting_since: float | None = None
        self.quarantined: Mapping[str, int] = {}

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "queue_bucket", "cache_bucket", "prefix_bucket"]
        counts = GaugeMetricFamily(
            "training_samples_count", "Training samples by bucket, without empty buckets", labels=labels
        )
        held_out = GaugeMetricFamily(f"{_PREFIX}_holdout_samples", "Samples held out", labels=["model"])
        by_bucket = {model: target.bucket_counts() for model, target in self._targets.items()}
        for model, target in self._targets.items():
            held_out.add_metric([model], target.holdout_count)
            for bucket, count in by_bucket[model].items():
                counts.add_metric([model, *map(str, bucket)], count)
        lag = 0.0 if self.waiting_since is None else time.monotonic() - self.waiting_since
        aside = CounterMetricFamily(
            f"{_PREFIX}_quarantined_rows", "Rows set aside before they reached the window", labels=["reason"]
        )
        for reason in QUARANTINE_REASONS:
            aside.add_metric([reason], self.quarantined.get(reason, 0))
        yield counts
        yield held_out
        yield aside
        yield GaugeMetricFamily(
            f"{_PREFIX}_ingestion_lag_seconds", "Age of the oldest sample that no pass has seen yet", value=lag
        )
        yield from _total_families(by_bucket)
        if self.prefixes is not None:
            yield from _prefix_families(self.prefixes)


class _PassCollector(Collector):
    """The last five passes, under the names of llm-d's training server; index 0 is the oldest."""

    def __init__(self, targets: list[str], fit: FitSettings) -> None:
        self._fit = fit
        self._history: dict[str, deque[dict[str, float]]] = {name: deque(maxlen=5) for name in targets}
        self._importances: dict[str, dict[str, float]] = {}
        self._intercepts: dict[str, float] = {}

    def record_pass(self, result: PassResult) -> None:
        for model, fitted in result.published.items():
            self._history[model].append(fitted.manifest.holdout_scores)
            self._importances[model] = fitted.importances
            if fitted.intercept is not None:
                self._intercepts[model] = fitted.intercept

    def collect(self) -> Iterator[Metric]:
        kind = GaugeMetricFamily("model_type", "Kind of model", labels=["type"])
        kind.add_metric([self._fit.model_type], 1)
        yield kind
        for name in ("ensemble_active", "ensemble_mode"):
            yield GaugeMetricFamily(name, "Always 0: each target has one model", value=0)
        if self._fit.quantiles:
            quantile = self._fit.quantiles[0]
            yield GaugeMetricFamily("model_quantile", "Predicted quantile", value=quantile)
            yield GaugeMetricFamily("target_coverage_percent", "Intended coverage, in percent", value=100 * quantile)
            violations = 100 * (1 - quantile)
            yield GaugeMetricFamily(
                "target_violation_rate_percent", "Intended violation rate, in percent", value=violations
            )
        for model, history in self._history.items():
            yield from self._model_families(model, list(history))

    def _model_families(self, model: str, history: list[dict[str, float]]) -> Iterator[Metric]:
        loss = GaugeMetricFamily(f"{model}_quantile_loss", "Loss on the holdout, in ms", labels=["idx"])
        covered = GaugeMetricFamily(
            f"{model}_coverage_percent", "Percent of held-out samples at or below the prediction", labels=["idx"]
        )
        above = GaugeMetricFamily(
            f"{model}_violation_rate_percent", "Percent of held-out samples above the prediction", labels=["idx"]
        )
        for index, scores in enumerate(history):
            if "loss" in scores:
                loss.add_metric([str(index)], scores["loss"])
            if "coverage" in scores:
                covered.add_metric([str(index)], 100 * scores["coverage"])
                above.add_metric([str(index)], 100 * (1 - scores["coverage"]))
        yield from (loss, covered, above)
        linear = model in self._intercepts
        name, text = ("coef", "Coefficient of a feature") if linear else ("importance", "Gain of a feature's splits")
        weights = GaugeMetricFamily(f"{model}_{name}", text, labels=["feature"])
        for feature, value in self._importances.get(model, {}).items():
            weights.add_metric([feature], value)
        yield weights
        if linear:
            yield GaugeMetricFamily(f"{model}_intercept", "Constant of the model", value=self._intercepts[model])


def _total_families(by_bucket: Mapping[str, Counts]) -> Iterator[Metric]:
    parts = (("queue", 0, QUEUE_BUCKETS), ("cache", 1, KV_BUCKETS), ("prefix", 2, len(RANGES)))
    for part, position, size in parts:
        labels = ["model", f"{part}_bucket", *(["range"] if part == "prefix" else [])]
        family = GaugeMetricFamily(f"training_samples_{part}_total", f"Samples by {part} bucket", labels=labels)
        for model, counts in by_bucket.items():
            for number, total in enumerate(_totals(counts, position, size)):
                family.add_metric([model, str(number), *([RANGES[number]] if part == "prefix" else [])], total)
        yield family


def _totals(counts: Counts, position: int, size: int) -> list[int]:
    totals = [0] * size
    for bucket, count in counts.items():
        totals[bucket[position]] += count
    return totals


def _prefix_families(summary: PrefixSummary) -> Iterator[Metric]:
    for name, value in summary.scores.items():
        yield GaugeMetricFamily(f"prefix_score_{name}", f"Prefix scores: {name}", value=value)
    for name, field in (("avg", "mean_ttft_ms"), ("median", "median_ttft_ms")):
        family = GaugeMetricFamily(
            f"{name}_ttft_by_prefix", f"TTFT in ms by prefix score: {name}", labels=["prefix_bucket", "range"]
        )
        for number, found in enumerate(summary.ranges):
            value = getattr(found, field)
            if value is not None:
                family.add_metric([str(number), RANGES[number]], value)
        yield family
