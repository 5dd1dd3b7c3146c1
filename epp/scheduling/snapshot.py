"""The pool as one decision sees it: arrays over the candidate endpoints, all of the same length."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

# TPOT objectives are grouped by these values (ms), each a fifth above the one before, from 4 ms to 1.1 s.
# Greater objectives belong to the last group.
TPOT_SLOS_MS: Floats = np.array([4.0 * 1.2**place for place in range(32)])
# Mean output tokens of a response, assumed until responses have been observed.
TYPICAL_OUTPUT_TOKENS = 200.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A replica of the model server. `address` is ip:port.

    `metrics_address` is host:port of the metrics page if the page is elsewhere, else empty. `server_name` is the name
    that the server's certificate must have; empty if it is the address itself.
    """

    name: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    metrics_address: str = ""
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Adapters:
    """LoRA adapters of an endpoint: those loaded, those waiting to load, and how many can be loaded at once."""

    active: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    capacity: int = 0


NO_ADAPTERS = Adapters()


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predicted latencies, one value per candidate, and their source; NaN where there is no prediction.

    `ttft_ms` and `tpot_ms` are what the models were trained for, by default 0.9-quantiles.
    The medians are None when the predictor gives none.
    """

    ttft_ms: Floats
    tpot_ms: Floats
    generation: int
    source: str
    ttft_median_ms: Floats | None = None
    tpot_median_ms: Floats | None = None

    def times(self, factors: Floats) -> "Predictions":
        """Return these predictions with each candidate's latencies multiplied by the candidate's factor."""
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
        """Return the predictions of the candidates at `indices`."""
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
    """TPOT objectives and progress of the requests in flight, as arrays of shape [candidates, groups].

    A group holds requests with similar TPOT objectives, and `requests` counts them. The other arrays are averages over
    a group's requests, 0 where the group is empty. `slo_ms` is the objective and `tokens` the output tokens so far.
    `decoding_ms` is the time since the first token.
    """

    requests: Floats
    slo_ms: Floats
    tokens: Floats
    decoding_ms: Floats

    def at(self, indices: Indices) -> "TpotSlos":
        """Return the arrays of the candidates at `indices`."""
        return TpotSlos(*(column[indices] for column in (self.requests, self.slo_ms, self.tokens, self.decoding_ms)))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The candidates' state at one moment. Every array has shape [candidates].

    Scraped: `waiting`, `running` and `kv_usage` (0 to 1) were read `metrics_age_s` seconds ago (inf: never).
    `waiting` includes requests that this picker has sent since.

    Counted or observed by this picker, exact and current:
    - `tightest_tpot_slo_ms` is inf where no request in flight has a TPOT objective.
    - The `recent_` averages are NaN where nothing has been observed.
    - `ms_since_token` is the time since the endpoint was last seen to emit an output token, which is when its present
      step began. NaN unless a response on this endpoint is being observed.

    From the endpoint's label: `role` is 1 for prefill, 2 for decode, else NaN.

    From the latency models:
    - `prefill_ms_per_token` and `unloaded_tpot_ms` are NaN where the models weren't asked.
    - `tpot_bias` is how many times longer than predicted the endpoint's TPOT is, relative to the other endpoints.
    - `slowdown` is how many times longer the endpoint's latencies are than the models know. `predictions` include
      this factor. Both factors are 1 where nothing is known.
    - `tpot_slos` comes with predictions when a plugin needs costs.

    `output_tokens` is the mean length of responses.
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
        """Return a view of the candidates at `indices`, in that order; each column is copied when first read."""
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
        """The snapshot of all candidates of the decision, of which filters may have left only these."""
        return self if self._whole is None else self._whole

    @property
    def positions(self) -> Indices | None:
        """The indices of these candidates in `whole`; None when this snapshot is `whole`."""
        return self._at

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Copy a column of a view on first use. Python calls this only for attributes that aren't set yet."""
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
