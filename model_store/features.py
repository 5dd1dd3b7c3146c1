"""The raw input features of the latency models, with their units and ranges.

Derived features are not listed: the exported graph computes them, so training and serving can't differ.
"""

import math

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
    def fill_value(self) -> float:
        """The value that replaces an absent one; NaN where the model handles missing values itself."""
        return math.nan if isinstance(self.default, str) or self.default is None else self.default

    @property
    def plausible_value(self) -> float:
        """A valid example value: the middle of the range, or the minimum plus 1 when the range has no upper end."""
        if self.maximum is not None:
            return (self.minimum + self.maximum) / 2
        return max(self.minimum, 0.0) + 1


MISSING = "missing"

KV_CACHE = Feature("kv_cache_percentage", "fraction", maximum=1.0, description="KV cache in use on the endpoint")
INPUT_TOKENS = Feature("input_token_length", "tokens", description="length of the prompt")
WAITING = Feature("num_request_waiting", "requests", description="requests queued on the endpoint")
RUNNING = Feature("num_request_running", "requests", description="requests in the endpoint's running batch")
GENERATED = Feature("num_tokens_generated", "tokens", description="tokens already generated for the request")
PREFIX_SCORE = Feature(
    "prefix_cache_score", "fraction", maximum=1.0, description="share of the prompt that the endpoint has cached"
)
PREFILL_IN_FLIGHT = Feature(
    "prefill_tokens_in_flight",
    "tokens",
    default=0.0,
    description="prompt tokens dispatched to the endpoint whose first output token is still to come",
)
DECODE_IN_FLIGHT = Feature(
    "decode_tokens_in_flight",
    "tokens",
    default=0.0,
    description="tokens held by the requests that the endpoint is generating for",
)
RECENT_PREFILL = Feature(
    "recent_prefill_ms_per_token",
    "ms/token",
    default=MISSING,
    description="time to first token lately observed on the endpoint, per prompt token that was ahead of it",
)
RECENT_TPOT = Feature(
    "recent_tpot_ms",
    "ms",
    default=MISSING,
    description="time per output token lately observed on the endpoint; tells a slow endpoint from a fast one",
)
SINCE_TOKEN = Feature(
    "ms_since_token",
    "ms",
    default=MISSING,
    description="time since the endpoint was last seen to emit output tokens, that is since its present step began; "
    "missing where none of the responses that it generates is observed",
)

ENCODER_MATCHED = Feature(
    "encoder_matched_size", "items", default=0.0, description="multimodal inputs whose encoding the endpoint has cached"
)
ENCODER_INPUT = Feature("encoder_input_size", "items", default=0.0, description="multimodal inputs of the request")
POD_TYPE = Feature(
    "pod_type", "code", maximum=2.0, default=MISSING, description="the endpoint's role: 1 prefill, 2 decode, or missing"
)
# How roles are spelled on the wire; any other text counts as missing.
POD_TYPE_CODES = {"prefill": 1.0, "decode": 2.0}

TTFT_FEATURES = (
    KV_CACHE,
    INPUT_TOKENS,
    WAITING,
    RUNNING,
    PREFIX_SCORE,
    PREFILL_IN_FLIGHT,
    DECODE_IN_FLIGHT,
    ENCODER_MATCHED,
    ENCODER_INPUT,
    POD_TYPE,
    RECENT_PREFILL,
    RECENT_TPOT,
    SINCE_TOKEN,
)
TPOT_FEATURES = (
    KV_CACHE,
    INPUT_TOKENS,
    WAITING,
    RUNNING,
    GENERATED,
    PREFILL_IN_FLIGHT,
    DECODE_IN_FLIGHT,
    POD_TYPE,
    RECENT_TPOT,
)
# Every raw feature once, in the column order of a full row: what the router sends and the trainer keeps.
ROW_FEATURES = (
    KV_CACHE,
    INPUT_TOKENS,
    WAITING,
    RUNNING,
    GENERATED,
    PREFIX_SCORE,
    PREFILL_IN_FLIGHT,
    DECODE_IN_FLIGHT,
    ENCODER_MATCHED,
    ENCODER_INPUT,
    POD_TYPE,
    RECENT_PREFILL,
    RECENT_TPOT,
    SINCE_TOKEN,
)
SCHEMAS: dict[str, tuple[Feature, ...]] = {"ttft": TTFT_FEATURES, "tpot": TPOT_FEATURES}
