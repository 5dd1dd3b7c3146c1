"""The trainer's metrics: the training server's names where it has them, this project's own beside them."""

import time
from collections import deque
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from trainer.prefixes import RANGES, PrefixSummary
from trainer.settings import FitSettings
from trainer.training_pass import PassResult
from trainer.window import KV_BUCKETS, QUEUE_BUCKETS, Window

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_PREFIX = "headroom_trainer"

# Samples by (queue, KV cache, prefix) bucket.
Counts = Mapping[tuple[int, int, int], int]


class Metrics:
    """Every metric of the process, in a registry of its own."""

    def __init__(self, window: Window, fit: FitSettings) -> None:
        self.registry = registry = CollectorRegistry()
        self.rows = Counter(f"{_PREFIX}_rows", "Samples by fate", ("fate",), registry=registry)
        self.passes = Counter(f"{_PREFIX}_passes", "Training passes by outcome", ("outcome",), registry=registry)
        self.failures = Counter(
            f"{_PREFIX}_failures",
            "What failed: reading the store, leading it, a fit, a publication or the journal",
            ("stage",),
            registry=registry,
        )
        self.refusals = Counter(
            f"{_PREFIX}_refusals", "Models that did not pass the gate", ("model", "reason"), registry=registry
        )
        self.law_changes = Counter(
            f"{_PREFIX}_law_changes", "Times that the newest samples obeyed another law", ("model",), registry=registry
        )
        self.seconds = Histogram(
            f"{_PREFIX}_seconds", "Time of each stage", ("stage",), buckets=_SECONDS, registry=registry
        )
        self._drift = Gauge(
            f"{_PREFIX}_drift_score",
            "Standard errors by which the newest samples differ from the ones before, against the served model",
            ("model",),
            registry=registry,
        )
        self._generation = Gauge(f"{_PREFIX}_generation", "The newest generation", registry=registry)
        self._published_at = Gauge(
            f"{_PREFIX}_last_publication_timestamp_seconds", "When it was published", registry=registry
        )
        self._trees = Gauge(f"{_PREFIX}_trees", "Trees of the newest model", ("model",), registry=registry)
        self._scores = Gauge(
            f"{_PREFIX}_holdout", "Scores of the last fitted model", ("model", "score"), registry=registry
        )
        self._window = _WindowCollector(window)
        self._last_passes = _PassCollector(list(window.targets), fit)
        for collector in (self._window, self._last_passes):
            registry.register(collector)

    def page(self) -> bytes:
        return generate_latest(self.registry)

    def passed(self, result: PassResult) -> None:
        self.passes.labels(result.outcome).inc()
        if result.failed_at:
            self.failures.labels(result.failed_at).inc()
        if result.generation is not None:
            self._generation.set(result.generation.generation)
            self._published_at.set(result.generation.published_at.timestamp())
        for stage, seconds in result.seconds.items():
            self.seconds.labels(stage).observe(seconds)
        for model, learnt in result.learnt.items():
            self._drift.labels(model).set(learnt.drift_score)
            if learnt.refusal:
                self.refusals.labels(model, learnt.refused_for).inc()
            for score, value in learnt.manifest.holdout_scores.items():
                self._scores.labels(model, score).set(value)
        for model, learnt in result.published.items():
            self._trees.labels(model).set(learnt.trees)
        self._last_passes.passed(result)

    def prefixes(self, summary: PrefixSummary | None) -> None:
        self._window.prefixes = summary

    def took_in(self, rows: int, new: bool, seconds: float) -> None:
        """A batch was taken in, or known already."""
        self.rows.labels("accepted" if new else "repeated").inc(rows)
        self.seconds.labels("ingest").observe(seconds)
        if new and self._window.waiting_since is None:
            self._window.waiting_since = time.monotonic()

    def pass_begins(self) -> None:
        """All that was taken in is seen from now on."""
        self._window.waiting_since = None


class _WindowCollector(Collector):
    """The window's sizes, counted when the page is asked for."""

    def __init__(self, window: Window) -> None:
        self._targets = window.targets
        self.prefixes: PrefixSummary | None = None
        self.waiting_since: float | None = None

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "queue_bucket", "cache_bucket", "prefix_bucket"]
        counts = GaugeMetricFamily("training_samples_count", "Samples by bucket, empty ones left out", labels=labels)
        held_out = GaugeMetricFamily(f"{_PREFIX}_holdout_samples", "Samples held out", labels=["model"])
        by_bucket = {model: target.bucket_counts() for model, target in self._targets.items()}
        for model, target in self._targets.items():
            held_out.add_metric([model], target.holdout_count)
            for bucket, count in by_bucket[model].items():
                counts.add_metric([model, *map(str, bucket)], count)
        lag = 0.0 if self.waiting_since is None else time.monotonic() - self.waiting_since
        yield counts
        yield held_out
        yield GaugeMetricFamily(
            f"{_PREFIX}_ingestion_lag_seconds", "How long the oldest sample waits that no pass has seen", value=lag
        )
        yield from _total_families(by_bucket)
        if self.prefixes is not None:
            yield from _prefix_families(self.prefixes)


class _PassCollector(Collector):
    """The last passes, as the training server shows them: index 0 is the oldest of five."""

    def __init__(self, targets: list[str], fit: FitSettings) -> None:
        self._fit = fit
        self._history: dict[str, deque[dict[str, float]]] = {name: deque(maxlen=5) for name in targets}
        self._importances: dict[str, dict[str, float]] = {}
        self._intercepts: dict[str, float] = {}

    def passed(self, result: PassResult) -> None:
        for model, learnt in result.published.items():
            self._history[model].append(learnt.manifest.holdout_scores)
            self._importances[model] = learnt.importances
            if learnt.intercept is not None:
                self._intercepts[model] = learnt.intercept

    def collect(self) -> Iterator[Metric]:
        kind = GaugeMetricFamily("model_type", "Kind of model", labels=["type"])
        kind.add_metric([self._fit.model_type], 1)
        yield kind
        for name in ("ensemble_active", "ensemble_mode"):
            yield GaugeMetricFamily(name, "Never: there is one model a target", value=0)
        if self._fit.quantiles:
            quantile = self._fit.quantiles[0]
            yield GaugeMetricFamily("model_quantile", "The quantile that is predicted", value=quantile)
            yield GaugeMetricFamily("target_coverage_percent", "Wanted coverage", value=100 * quantile)
            yield GaugeMetricFamily("target_violation_rate_percent", "Wanted violations", value=100 * (1 - quantile))
        for model, history in self._history.items():
            yield from self._of_model(model, list(history))

    def _of_model(self, model: str, history: list[dict[str, float]]) -> Iterator[Metric]:
        loss = GaugeMetricFamily(f"{model}_quantile_loss", "Loss on the holdout, in ms", labels=["idx"])
        covered = GaugeMetricFamily(f"{model}_coverage_percent", "Holdout at or below its prediction", labels=["idx"])
        above = GaugeMetricFamily(f"{model}_violation_rate_percent", "Holdout above its prediction", labels=["idx"])
        for index, scores in enumerate(history):
            if "loss" in scores:
                loss.add_metric([str(index)], scores["loss"])
            if "coverage" in scores:
                covered.add_metric([str(index)], 100 * scores["coverage"])
                above.add_metric([str(index)], 100 * (1 - scores["coverage"]))
        yield from (loss, covered, above)
        linear = model in self._intercepts
        what = ("coef", "Coefficient of a feature") if linear else ("importance", "Gain of a feature's splits")
        weights = GaugeMetricFamily(f"{model}_{what[0]}", what[1], labels=["feature"])
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
