"""The raw input features of the latency models, with their units and ranges.

`FeatureRow` defines the features. To add one, add a field there, and compute its value in `epp/prediction/features.py`.
Derived features are not listed: the exported graph computes them, so training and serving can't differ.
"""

import math
from typing import Annotated, NamedTuple

import msgspec


class Feature(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input column of a model.

    `default=None`: every row must carry the feature. `default="missing"`: an absent value becomes NaN.
    """

    name: str
    unit: str
    minimum: float = 0.0
    maximum: float | None = None
    default: float | str | None = None
    description: str = ""

    @property
    def required(self) -> bool:
        return self.default is None

    @property
    def may_be_missing(self) -> bool:
        """True if the value may be unknown: null in JSON, NaN in a matrix."""
        return isinstance(self.default, str)

    @property
    def is_count(self) -> bool:
        """True if values are whole numbers."""
        return self.unit in ("tokens", "requests", "items")

    @property
    def is_role(self) -> bool:
        """True if values are codes of POD_TYPE_CODES; JSON has their texts."""
        return self.unit == "code"

    @property
    def is_time(self) -> bool:
        """True if values are milliseconds, or milliseconds per unit of something."""
        return self.unit in ("ms", "ms/token")

    @property
    def fill_value(self) -> float:
        """The value that replaces an absent one; NaN where the model handles missing values itself."""
        return math.nan if isinstance(self.default, str) or self.default is None else self.default

    @property
    def plausible_value(self) -> float:
        """A valid example value: the middle of the range, or the minimum plus 1 when the range has no upper end."""
        if self.maximum is not None:
            return (self.minimum + self.maximum) / 2
        return max(self.minimum, 0.0) + 1


class Column(NamedTuple):
    """A row's field as a model input: its unit, the targets whose models take it, and a description."""

    unit: str
    targets: tuple[str, ...]
    description: str


TARGETS = ("ttft", "tpot")
BOTH, TTFT, TPOT = TARGETS, TARGETS[:1], TARGETS[1:]

MISSING = "missing"
# The codes of the roles that JSON spells out. Any other role counts as missing.
POD_TYPE_CODES = {"prefill": 1.0, "decode": 2.0}
# The largest value in these units. In other units only the field's type bounds a value.
_LARGEST = {"fraction": 1.0, "code": max(POD_TYPE_CODES.values())}
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
# The limits are far above any real value, and far below the largest float32.
LARGEST_COUNT = 2**53
Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_COUNT)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class FeatureRow(msgspec.Struct, frozen=True):
    """The raw features of one request on one endpoint. Unknown fields are ignored, so newer clients are accepted."""

    kv_cache_percentage: Annotated[Fraction, Column("fraction", BOTH, "KV cache in use on the endpoint")]
    input_token_length: Annotated[Count, Column("tokens", BOTH, "length of the prompt")]
    num_request_waiting: Annotated[Count, Column("requests", BOTH, "requests queued on the endpoint")]
    num_request_running: Annotated[Count, Column("requests", BOTH, "requests in the endpoint's running batch")]
    num_tokens_generated: Annotated[Count, Column("tokens", TPOT, "tokens already generated for the request")]
    prefix_cache_score: Annotated[
        Fraction, Column("fraction", TTFT, "share of the prompt that the endpoint has cached")
    ]
    # From here on every field has a default, for clients that don't send it.
    prefill_tokens_in_flight: Annotated[
        Count,
        Column(
            "tokens", BOTH, "prompt tokens of requests on the endpoint that still wait for their first output token"
        ),
    ] = 0
    decode_tokens_in_flight: Annotated[
        Count, Column("tokens", BOTH, "tokens held by the requests for which the endpoint is generating output")
    ] = 0
    encoder_matched_size: Annotated[
        Count, Column("items", TTFT, "multimodal inputs whose encoding the endpoint has cached")
    ] = 0
    encoder_input_size: Annotated[Count, Column("items", TTFT, "multimodal inputs of the request")] = 0
    pod_type: Annotated[str | None, Column("code", BOTH, "the endpoint's role: 1 prefill, 2 decode, or missing")] = None
    recent_prefill_ms_per_token: Annotated[
        Milliseconds | None,
        Column(
            "ms/token",
            TTFT,
            "recent time to first token on the endpoint, per prompt token that was ahead of it",
        ),
    ] = None
    recent_tpot_ms: Annotated[
        Milliseconds | None,
        Column(
            "ms",
            BOTH,
            "recent time per output token on the endpoint; it distinguishes slow endpoints from fast ones",
        ),
    ] = None
    ms_since_token: Annotated[
        Milliseconds | None,
        Column(
            "ms",
            TTFT,
            "time since the endpoint last emitted output tokens, that is since its present step began; "
            "missing if none of its responses is observed",
        ),
    ] = None


def _column(field: msgspec.structs.FieldInfo) -> Column:
    column: Column = field.type.__metadata__[-1]
    return column


def _default(field: msgspec.structs.FieldInfo) -> float | str | None:
    if field.required:
        return None
    return MISSING if field.default is None else float(field.default)


def _feature(field: msgspec.structs.FieldInfo) -> Feature:
    unit, _, description = _column(field)
    return Feature(field.name, unit, maximum=_LARGEST.get(unit), default=_default(field), description=description)


_FIELDS = msgspec.structs.fields(FeatureRow)
# The columns of a full row, which the picker sends and the trainer keeps.
ROW_FEATURES = tuple(map(_feature, _FIELDS))
ROW_NAMES = tuple(feature.name for feature in ROW_FEATURES)
SCHEMAS: dict[str, tuple[Feature, ...]] = {
    target: tuple(map(_feature, (field for field in _FIELDS if target in _column(field).targets))) for target in TARGETS
}
