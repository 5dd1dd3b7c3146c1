"""The pool as one decision sees it: arrays over the candidate endpoints, all of one length."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

# TPOT objectives are grouped in steps of a fifth, from 4 ms to 1.1 s; what is beyond is in the last group.
TPOT_SLOS_MS: Floats = np.array([4.0 * 1.2**place for place in range(32)])
TYPICAL_OUTPUT_TOKENS = 200.0


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
    """Predicted latencies, a value a candidate, and where they came from; NaN where there is none.

    The first two are whatever the models were trained for, by default 0.9-quantiles; medians are None where there are
    none.
    """

    ttft_ms: Floats
    tpot_ms: Floats
    generation: int
    source: str
    ttft_median_ms: Floats | None = None
    tpot_median_ms: Floats | None = None

    def times(self, factors: Floats) -> "Predictions":
        """All latencies of each candidate multiplied by its factor."""
        if (factors == 1).all():
            return self
        ttft, tpot = self.ttft_median_ms, self.tpot_median_ms
        return replace(
            self,
            ttft_ms=self.ttft_ms * factors,
            tpot_ms=self.tpot_ms * factors,
            ttft_median_ms=None if ttft is None else ttft * factors,
            tpot_median_ms=None if tpot is None else tpot * factors,
        )

    def at(self, indices: Indices | slice) -> "Predictions":
        """Those of some candidates."""
        ttft, tpot = self.ttft_median_ms, self.tpot_median_ms
        return replace(
            self,
            ttft_ms=self.ttft_ms[indices],
            tpot_ms=self.tpot_ms[indices],
            ttft_median_ms=None if ttft is None else ttft[indices],
            tpot_median_ms=None if tpot is None else tpot[indices],
        )


@dataclass(frozen=True, slots=True)
class TpotSlos:
    """What the requests in flight ask for, and how far they have come: [candidates, groups of like TPOT objectives].

    `requests` counts those of a group; the others are averages over these, 0 where there are none: the objective, the
    output tokens so far, and the time in which these came since the first.
    """

    requests: Floats
    slo_ms: Floats
    tokens: Floats
    decoding_ms: Floats

    def at(self, indices: Indices) -> "TpotSlos":
        """Of some candidates."""
        return TpotSlos(*(column[indices] for column in (self.requests, self.slo_ms, self.tokens, self.decoding_ms)))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The candidates' state at one moment. Every array has shape [candidates].

    `waiting`, `running` and `kv_usage` (0..1) are scraped, `metrics_age_s` ago (inf: never); the rest is this picker's
    own knowledge, exact and current. `tightest_tpot_slo_ms` is inf where no request in flight has such an objective;
    what is `recent` is NaN where nothing has been observed. `ms_since_token` is the time since an output token was last
    seen to come from the endpoint, which is when its present step began; NaN where no response that is being generated
    there is observed. `role` is 1 for prefill, 2 for decode, else NaN.

    `tpot_slos` comes with predictions, where a plugin asks what placements cost. `prefill_ms_per_token` and
    `unloaded_tpot_ms` are what the models say of an endpoint, NaN where they weren't asked. `tpot_bias` is by which
    factor an endpoint's TPOT is taken to be longer than predicted, beside the others, and `slowdown` by which its
    latencies are longer than models know, which predictions contain: 1 where nobody can tell.
    `output_tokens` is how long answers are on average.
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
    ms_since_token: Floats
    prefix_score: Floats
    role: Floats
    prefill_ms_per_token: Floats
    unloaded_tpot_ms: Floats
    tpot_bias: Floats
    slowdown: Floats
    endpoints: tuple[Endpoint, ...]
    adapters: tuple[Adapters, ...]
    output_tokens: float = TYPICAL_OUTPUT_TOKENS
    predictions: Predictions | None = None
    tpot_slos: TpotSlos | None = None
    _whole: "Snapshot | None" = field(default=None, init=False, repr=False, compare=False)
    _at: Indices | None = field(default=None, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.endpoints) if self._at is None else len(self._at)

    def take(self, indices: Indices) -> "Snapshot":
        """The candidates at `indices`, in that order; a column is copied when it is first asked for."""
        view: Snapshot = object.__new__(Snapshot)
        object.__setattr__(view, "_whole", self.whole)
        object.__setattr__(view, "_at", indices if self._at is None else self._at[indices])
        return view

    def with_predictions(self, predictions: Predictions, tpot_slos: TpotSlos | None = None) -> "Snapshot":
        return replace(self, predictions=predictions, tpot_slos=tpot_slos)

    def without_predictions(self) -> "Snapshot":
        return replace(self, predictions=None)

    @property
    def whole(self) -> "Snapshot":
        """All candidates of the decision, when these are some of them that filters left."""
        return self if self._whole is None else self._whole

    @property
    def positions(self) -> Indices | None:
        """Where these candidates are among those of `whole`; None when they are the whole."""
        return self._at

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """A column of a view; slots that were set never come by here."""
            if name.startswith("_"):
                raise AttributeError(name)
            column = _take_rows(getattr(self._whole, name), self._at)
            object.__setattr__(self, name, column)
            return column


def _take_rows(column: Any, at: Indices) -> Any:
    if isinstance(column, np.ndarray):
        return column[at]
    if isinstance(column, tuple):
        return tuple(column[i] for i in at)
    if isinstance(column, Predictions | TpotSlos):
        return column.at(at)
    return column
