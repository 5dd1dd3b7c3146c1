"""The metrics of each model. Clients name the models, so the series are bounded in number, and those unused expire."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.registry import CollectorRegistry

from epp.llm_d_names import latency_names, normalised_names, violation_names
from epp.model_series import Family, HistogramSeries, ValueSeries, counters, gauges, histograms
from epp.request.names import LONGEST_NAME

LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
TOKEN_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1)
DECISION_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
BYTE_BUCKETS = tuple(64 * 4**power for power in range(11))
_TOKEN_COUNT_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 1048576)
_ERROR_BUCKETS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2, 5)
_LABELS = ("model_name", "target_model_name")
# Models whose requests are counted by name, and those that have all other series, about 250 each. Further models share
# the name `other`, and so do models with names of more than LONGEST_NAME characters.
MOST_MODELS = 1000
MOST_DETAILED = 50
# Error codes that are counted by model; further ones are counted under `other`.
_MOST_ERRORS = 2000
# Seconds without a request after which a model's series go, and after which they make room for another model.
EXPIRY_S = 900.0
_ROOM_S = 60.0
OTHER = "other"
_OTHERS = (OTHER, OTHER)


@dataclass(frozen=True, slots=True)
class LatencyMetrics:
    """The metrics of one latency (TTFT or TPOT) of one model."""

    observed_s: HistogramSeries
    observed_last_s: ValueSeries
    predicted_s: HistogramSeries
    predicted_last_s: ValueSeries
    prediction_duration_s: HistogramSeries
    prediction_duration_last_s: ValueSeries
    violated: ValueSeries
    violations: ValueSeries
    threshold_s: ValueSeries
    relative_error: HistogramSeries


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """The metrics of one model, looked up once per request."""

    requests: ValueSeries
    duration_s: HistogramSeries
    request_bytes: HistogramSeries
    response_bytes: HistogramSeries
    input_tokens: HistogramSeries
    output_tokens: HistogramSeries
    normalised_tpot_s: HistogramSeries
    running: ValueSeries
    ttft: LatencyMetrics
    tpot: LatencyMetrics


@dataclass(slots=True)
class _Model:
    """A model by name. `recent` counts its requests, halved once a minute."""

    metrics: ModelMetrics
    is_detailed: bool
    used_s: float
    recent: int = 0


class ModelTable:
    """The metrics of all models. `clock` returns seconds of a monotonic clock."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._families = _Families()
        for family in self._families.all:
            # prometheus_client refuses a gauge `x` beside a counter `x_total` in one registry.
            if family not in self._families.violated:
                registry.register(family)
        self._models: OrderedDict[tuple[str, str], _Model] = OrderedDict()
        self._detailed: set[tuple[str, str]] = set()
        self._halved_s = clock()

    def model(self, incoming: str, target: str) -> ModelMetrics:
        """Return the metrics of model `incoming` as rewritten to `target`, for one more request."""
        key, now_s = (incoming, target), self._clock()
        found = self._models.get(key)
        if found is None:
            key = key if max(len(incoming), len(target)) <= LONGEST_NAME and self._has_room(now_s) else _OTHERS
            found = self._models.get(key) or self._add(key, now_s)
        found.used_s = now_s
        found.recent += 1
        self._models.move_to_end(key)
        # Comparing now and then is enough: at each power of two.
        if not found.is_detailed and not found.recent & (found.recent - 1):
            self._promote(key, found)
        return found.metrics

    def error(self, incoming: str, target: str, code: str) -> None:
        """Count a request that failed."""
        key = (incoming, target) if (incoming, target) in self._models else _OTHERS
        errors = self._families.errors
        if (*key, code) not in errors.series and len(errors.series) >= _MOST_ERRORS:
            key, code = _OTHERS, OTHER
        errors.at(*key, code).inc()

    def pages(self) -> Iterator[str]:
        """Yield the families in Prometheus' text format, after dropping the models without requests for so long."""
        self._expire(self._clock())
        for family in (*self._families.all, *self._families.renamed):
            yield family.page()

    def _has_room(self, now_s: float) -> bool:
        """Return whether another name may be added, if need be for the one without a request for the longest time."""
        if len(self._models) < MOST_MODELS - (_OTHERS not in self._models):
            return True
        key = next(key for key in self._models if key != _OTHERS)
        if now_s - self._models[key].used_s < _ROOM_S:
            return False
        if self._models[key].metrics.running.value > 0:
            self._models.move_to_end(key)
            return False
        self._forget(key)
        return True

    def _add(self, key: tuple[str, str], now_s: float) -> _Model:
        is_detailed = key == _OTHERS or len(self._detailed) < MOST_DETAILED
        if is_detailed and key != _OTHERS:
            self._detailed.add(key)
        found = self._models[key] = _Model(self._metrics(key, is_detailed), is_detailed, now_s)
        return found

    def _metrics(self, key: tuple[str, str], is_detailed: bool) -> ModelMetrics:
        return self._families.model(key, key if is_detailed else _OTHERS)

    def _promote(self, key: tuple[str, str], model: _Model) -> None:
        """Give a model all series, if there is room, or a model of less than half the requests has them."""
        if len(self._detailed) >= MOST_DETAILED:
            least = min(self._detailed, key=lambda detailed: self._models[detailed].recent)
            loser = self._models[least]
            if loser.recent * 2 >= model.recent:
                return
            self._detailed.discard(least)
            self._families.forget_details(least)
            loser.metrics, loser.is_detailed = self._metrics(least, False), False
        self._detailed.add(key)
        model.metrics, model.is_detailed = self._metrics(key, True), True

    def _expire(self, now_s: float) -> None:
        for key in [key for key, model in self._models.items() if now_s - model.used_s > EXPIRY_S]:
            if key != _OTHERS and not self._models[key].metrics.running.value:
                self._forget(key)
        if now_s - self._halved_s >= _ROOM_S:
            self._halved_s = now_s
            for model in self._models.values():
                model.recent //= 2

    def _forget(self, key: tuple[str, str]) -> None:
        del self._models[key]
        self._detailed.discard(key)
        self._families.forget(key, is_last=all(incoming != key[0] for incoming, _ in self._models))


class _Families:
    """The families of the models' series. All but the first three have series of the models with details only."""

    def __init__(self) -> None:
        self.requests = counters("inference_model_request_total", "Requests routed to an endpoint", _LABELS)
        self.errors = counters("inference_model_request_error_total", "Requests that failed", (*_LABELS, "error_code"))
        self.running = gauges("inference_model_running_requests", "Requests in flight", ("model_name",))
        self._by_request = (
            histograms(
                "inference_model_request_duration_seconds",
                "Seconds from the request's headers to the end of the response",
                LATENCY_BUCKETS_S,
                _LABELS,
            ),
            histograms("inference_model_request_sizes", "Sizes of request bodies in bytes", BYTE_BUCKETS, _LABELS),
            histograms(
                "inference_model_response_sizes", "Sizes of response bodies seen whole, in bytes", BYTE_BUCKETS, _LABELS
            ),
            histograms("inference_model_input_tokens", "Tokens per prompt", _TOKEN_COUNT_BUCKETS, _LABELS),
            histograms(
                "inference_model_output_tokens",
                "Output tokens per response whose tokens were counted",
                _TOKEN_COUNT_BUCKETS,
                _LABELS,
            ),
            histograms(
                "inference_model_normalized_time_per_output_token_seconds",
                "Request duration divided by the number of output tokens",
                TOKEN_BUCKETS_S,
                _LABELS,
            ),
        )
        self._ttft = _LatencyFamilies("ttft", "time to first token", LATENCY_BUCKETS_S)
        self._tpot = _LatencyFamilies("tpot", "time per output token", TOKEN_BUCKETS_S)
        self.violated: tuple[Family[ValueSeries], ...] = (self._ttft.violated, self._tpot.violated)
        self._detailed: tuple[Family[HistogramSeries] | Family[ValueSeries], ...] = (
            *self._by_request,
            *self._ttft.all,
            *self._tpot.all,
        )
        self.all = (self.requests, self.errors, self.running, *self._detailed)
        self.renamed = (
            *self._ttft.renamed,
            *self._tpot.renamed,
            *normalised_names(self._by_request[-1]),
            *violation_names([("ttft", self._ttft.violations), ("tpot", self._tpot.violations)]),
        )

    def model(self, key: tuple[str, str], details: tuple[str, str]) -> ModelMetrics:
        """Return the metrics of a model whose further series are those of `details`."""
        duration, request_bytes, response_bytes, input_tokens, output_tokens, tpot = (
            family.at(*details) for family in self._by_request
        )
        return ModelMetrics(
            requests=self.requests.at(*key),
            duration_s=duration,
            request_bytes=request_bytes,
            response_bytes=response_bytes,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            normalised_tpot_s=tpot,
            running=self.running.at(key[0]),
            ttft=self._ttft.at(details),
            tpot=self._tpot.at(details),
        )

    def forget_details(self, key: tuple[str, str]) -> None:
        for family in self._detailed:
            family.forget(*key)

    def forget(self, key: tuple[str, str], *, is_last: bool) -> None:
        """Drop all series of a model. `is_last` says that no other model has the same incoming name."""
        self.forget_details(key)
        self.requests.forget(*key)
        for labels in [labels for labels in self.errors.series if labels[:2] == key]:
            self.errors.forget(*labels)
        if is_last:
            self.running.forget(key[0])


class _LatencyFamilies:
    """The families of one latency, as LatencyMetrics has them."""

    def __init__(self, name: str, meaning: str, buckets: tuple[float, ...]) -> None:
        prefix = f"inference_model_request_{name}"
        predicted = f"inference_model_request_predicted_{name}"
        duration = f"{prefix}_prediction_duration_seconds"
        self.observed_s = histograms(f"{prefix}_seconds", f"Observed {meaning}", buckets, _LABELS)
        self.observed_last_s = gauges(f"{prefix}_seconds_gauge", f"Last observed {meaning}", _LABELS)
        self.predicted_s = histograms(
            f"{predicted}_seconds", f"Predicted {meaning} of the picked endpoint", buckets, _LABELS
        )
        self.predicted_last_s = gauges(f"{predicted}_seconds_gauge", f"Last predicted {meaning}", _LABELS)
        self.prediction_duration_s = histograms(
            duration, f"Duration of the batch that predicted {meaning}", DECISION_BUCKETS_S, _LABELS
        )
        self.prediction_duration_last_s = gauges(
            f"{duration}_gauge", f"Last duration of a batch that predicted {meaning}", _LABELS
        )
        self.violated = gauges(
            f"{prefix}_slo_violation", f"1 if the last observed request missed its {meaning} SLO, else 0", _LABELS
        )
        self.violations = counters(
            f"{prefix}_slo_violation_total", f"Observed requests that missed their {meaning} SLO", _LABELS
        )
        self.threshold_s = gauges(
            f"{prefix}_slo_threshold_seconds", f"SLO for {meaning} of the last request that had one", _LABELS
        )
        self.relative_error = histograms(
            f"headroom_epp_{name}_prediction_relative_error",
            "Absolute error of a prediction divided by the observed value",
            _ERROR_BUCKETS,
            _LABELS,
        )

        self.renamed = latency_names(name, self.observed_s, self.predicted_s, self.prediction_duration_s)

    @property
    def all(self) -> tuple[Family[HistogramSeries] | Family[ValueSeries], ...]:
        return tuple(getattr(self, name) for name in LatencyMetrics.__slots__)

    def at(self, key: tuple[str, str]) -> LatencyMetrics:
        return LatencyMetrics(*(getattr(self, name).at(*key) for name in LatencyMetrics.__slots__))
