"""The trainer's metrics: the training server's names where it has them, this project's own beside them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from trainer.derivation import design_columns
from trainer.fitting import importances
from trainer.training_pass import PassResult
from trainer.window import Window

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """Every metric of the process, in a registry of its own."""

    def __init__(self, window: Window, model_type: str, quantile: float | None) -> None:
        self.registry = CollectorRegistry()
        self.rows = Counter("headroom_trainer_rows", "Samples by fate", ("fate",), registry=self.registry)
        self.passes = Counter("headroom_trainer_passes", "Training passes", ("outcome",), registry=self.registry)
        self._seconds = Histogram(
            "headroom_trainer_seconds", "Time of a pass, by stage", ("stage",), buckets=_SECONDS, registry=self.registry
        )
        self._generation = Gauge("headroom_trainer_generation", "The newest generation", registry=self.registry)
        self._scores = Gauge(
            "headroom_trainer_holdout",
            "Scores of the last fitted model",
            ("model", "score"),
            registry=self.registry,
        )
        self._importance = {
            name: Gauge(
                f"{name}_importance", "Gain of a feature in the newest model", ("feature",), registry=self.registry
            )
            for name in window.targets
        }
        for name in ("ensemble_active", "ensemble_mode"):
            Gauge(name, "Never: there is one model a target", registry=self.registry).set(0)
        Gauge("model_type", "Kind of model", ("type",), registry=self.registry).labels(model_type).set(1)
        if quantile is not None:
            Gauge("model_quantile", "The quantile that is predicted", registry=self.registry).set(quantile)
        self.registry.register(_WindowCollector(window))

    def page(self) -> bytes:
        return generate_latest(self.registry)

    def passed(self, result: PassResult) -> None:
        self.passes.labels(result.outcome).inc()
        if result.generation is not None:
            self._generation.set(result.generation)
        for stage, seconds in result.seconds.items():
            self._seconds.labels(stage).observe(seconds)
        for model, found in result.scores.items():
            for score, value in found.items():
                self._scores.labels(model, score).set(value)
        for model, candidate in result.published.items():
            for feature, gain in importances(candidate.booster, design_columns(model)).items():
                self._importance[model].labels(feature).set(gain)


class _WindowCollector(Collector):
    """The window's sizes, counted when the page is asked for."""

    def __init__(self, window: Window) -> None:
        self._window = window

    def collect(self) -> list[GaugeMetricFamily]:
        labels = ["model", "queue_bucket", "cache_bucket", "prefix_bucket"]
        counts = GaugeMetricFamily("training_samples_count", "Samples by bucket, empty ones left out", labels=labels)
        for model, target in self._window.targets.items():
            for bucket, count in target.bucket_counts().items():
                counts.add_metric([model, *map(str, bucket)], count)
        held_out = GaugeMetricFamily("headroom_trainer_holdout_samples", "Samples held out", labels=["model"])
        for model, target in self._window.targets.items():
            held_out.add_metric([model], target.holdout_count)
        return [counts, held_out]
