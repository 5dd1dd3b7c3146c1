"""The pool as one decision sees it: arrays over the candidate endpoints, all of one length."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A replica of the model server; `address` is ip:port, and so is `metrics_address` if its metrics are elsewhere."""

    name: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    metrics_address: str = ""


@dataclass(frozen=True, slots=True)
class Adapters:
    """LoRA adapters of an endpoint: loaded, asked for, and how many can be loaded at once."""

    active: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    capacity: int = 0


NO_ADAPTERS = Adapters()


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predicted latencies, a value a candidate, and where they came from."""

    ttft_ms: Floats
    tpot_ms: Floats
    generation: int
    source: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The candidates' state at one moment. Every array has shape [candidates].

    `waiting`, `running` and `kv_usage` (0..1) are scraped, `metrics_age_s` ago (inf: never); the rest is this picker's
    own knowledge, exact and current. `tightest_tpot_slo_ms` is inf where no request in flight has such an objective;
    what is `recent` is NaN where nothing has been observed. `role` is 1 for prefill, 2 for decode, else NaN.
    """

    slots: Indices
    waiting: Floats
    running: Floats
    kv_usage: Floats
    metrics_age_s: Floats
    stale: Bools
    in_flight: Floats
    prefill_tokens: Floats
    decode_tokens: Floats
    tightest_tpot_slo_ms: Floats
    recent_prefill_ms_per_token: Floats
    recent_tpot_ms: Floats
    prefix_score: Floats
    role: Floats
    endpoints: tuple[Endpoint, ...]
    adapters: tuple[Adapters, ...]
    predictions: Predictions | None = None

    def __len__(self) -> int:
        return len(self.endpoints)

    def take(self, indices: Indices) -> "Snapshot":
        """The candidates at `indices`, in that order."""
        columns = {
            column.name: getattr(self, column.name)[indices]
            for column in fields(self)
            if column.name not in ("endpoints", "adapters", "predictions")
        }
        predictions = self.predictions
        if predictions:
            predictions = replace(
                predictions, ttft_ms=predictions.ttft_ms[indices], tpot_ms=predictions.tpot_ms[indices]
            )
        return Snapshot(
            **columns,
            endpoints=tuple(self.endpoints[i] for i in indices),
            adapters=tuple(self.adapters[i] for i in indices),
            predictions=predictions,
        )

    def with_predictions(self, predictions: Predictions) -> "Snapshot":
        return replace(self, predictions=predictions)
